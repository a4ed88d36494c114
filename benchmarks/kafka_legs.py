"""The limit of P7: the Kafka legs alone. A record is produced, copied by a bare loop of transactions, and consumed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import bare_loop as loop
from benchmarks.customers import Record, events
from benchmarks.measuring import Scalar, Settings
from benchmarks.processes import Process, bare_loop, wait_until
from benchmarks.servers import Servers
from benchmarks.stage import PARTITIONS, Stage, stage
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS

_WARM_UP_SECONDS: Final = 5.0
_PRODUCER: Final[dict[str, Scalar]] = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 1,
}
LIMIT_SETTINGS: Final[Settings] = {
    "limit: consumer": loop.CONSUMER,
    "limit: producer": loop.PRODUCER,
    "limit: first producer": _PRODUCER,
}


class _Times:
    """When each record was produced and consumed, by `time.perf_counter`."""

    def __init__(self) -> None:
        self.begun: dict[bytes, float] = {}
        self.ended: dict[bytes, float] = {}

    def all_ended(self) -> bool:
        return len(self.ended) == len(self.begun)


def kafka_legs(servers: Servers, per_second: float, seconds: float) -> list[float]:
    """Milliseconds from producing a record until it is read from the target of the bare loop."""
    count = max(1, round(per_second * seconds))
    warm_up = round(per_second * min(seconds, _WARM_UP_SECONDS))
    records = list(events(1 + warm_up + count))
    with stage(servers, {}) as on:
        source, target = on.settings.topic(ASYNC_CUSTOMERS), on.settings.topic(CUSTOMERS)
        times, done = _Times(), Event()
        with bare_loop(on, source, target, on.settings.group("bare-loop")) as process, ThreadPoolExecutor(1) as threads:
            consuming = threads.submit(_consume, on, target, times, done)
            try:
                _produce(on, times, records, per_second, process)
            finally:
                done.set()
            consuming.result()
    return [1000 * (times.ended[record.key] - times.begun[record.key]) for record in records[-count:]]


def _produce(on: Stage, times: _Times, records: list[Record], per_second: float, process: Process) -> None:
    """Produce a first record, which shows that everything works, then the others at a steady pace."""
    topic = on.settings.topic(ASYNC_CUSTOMERS)
    producer = Producer({"bootstrap.servers": on.servers.bootstrap_servers, **_PRODUCER})

    def produce(number: int) -> None:
        times.begun[records[number].key] = time.perf_counter()
        producer.produce(topic, records[number].value, records[number].key)
        producer.poll(0)

    produce(0)
    wait_until(times.all_ended, [process])
    _at_pace(len(records) - 1, per_second, lambda number: produce(number + 1))
    wait_until(times.all_ended, [process])
    producer.close()


def _at_pace(count: int, per_second: float, act: Callable[[int], None]) -> None:
    """Call `act` with 0 to `count` - 1 at a steady pace; late calls are made up for."""
    begin_at = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, begin_at + number / per_second - time.perf_counter()))
        act(number)


def _consume(on: Stage, topic: str, times: _Times, done: Event) -> None:
    own = {"bootstrap.servers": on.servers.bootstrap_servers, "group.id": on.settings.group("legs")}
    consumer = Consumer({**own, **loop.CONSUMER})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    while not done.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            times.ended[message.key() or b""] = time.perf_counter()
    consumer.close()
