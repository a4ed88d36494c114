"""The limit of every worker that reads one topic and writes another: a bare consume-produce loop with transactions.

    python -m benchmarks.bare_loop BOOTSTRAP_SERVERS SOURCE TARGET GROUP

Copies keys and values without decoding them, drops headers, at most 10,000 records per transaction. Ends at SIGTERM.
"""

import signal
import sys
from threading import Event
from typing import Final

from confluent_kafka import Consumer, Message, Producer

RECORDS_MAX: Final = 10_000

CONSUMER: Final[dict[str, str | int | bool]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 100,
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 65_536,
}
PRODUCER: Final[dict[str, str | int | bool]] = {
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 1,
    "retry.backoff.ms": 5,
    "retry.backoff.max.ms": 20,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 131_072,
}
_POLL_SECONDS: Final = 0.1
_SECONDS: Final = 30.0


def main(bootstrap_servers: str, source: str, target: str, group: str) -> None:
    """Run until SIGTERM."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    servers = {"bootstrap.servers": bootstrap_servers}
    producer = Producer({**servers, **PRODUCER, "transactional.id": group})
    producer.init_transactions(_SECONDS)
    consumer = Consumer({**servers, **CONSUMER, "group.id": group})
    consumer.subscribe([source])
    while not stop.is_set():
        messages = _collect(consumer)
        if messages:
            _copy(consumer, producer, messages, target)
    consumer.close()


def _collect(consumer: Consumer) -> list[Message]:
    """The records that are available; waits briefly for the first."""
    first = consumer.poll(_POLL_SECONDS)
    if first is None:
        return []
    messages = [first]
    while len(messages) < RECORDS_MAX:
        more = consumer.consume(RECORDS_MAX - len(messages), 0)
        if not more:
            break
        messages.extend(more)
    return messages


def _copy(consumer: Consumer, producer: Producer, messages: list[Message], target: str) -> None:
    producer.begin_transaction()
    for message in messages:
        producer.produce(target, message.value(), message.key())
    offsets = [position for position in consumer.position(consumer.assignment()) if position.offset >= 0]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), _SECONDS)
    producer.commit_transaction(_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
