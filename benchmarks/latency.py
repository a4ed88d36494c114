"""P7: how long a new customer is pending, at 100 creates per second in three stores, against the Kafka legs alone.

One store is on PostgreSQL, two are on SQLite. One process creates customers with the Python API, in each store at a
steady pace regardless of replies; each store has a `tenten channel run`, headquarters has one `tenten headquarters
run`. A customer's clock starts when `create_customer` returns, which is after its commit, and stops when a poll of the
store's database, every two milliseconds, finds the account number.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from statistics import quantiles
from threading import Event
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition
from sqlalchemy import make_url

from benchmarks import bare_loop as loop
from benchmarks.customers import events
from benchmarks.databases import observer
from benchmarks.measuring import Result, Scale
from benchmarks.processes import Process, bare_loop, tenten, wait_until
from benchmarks.servers import Servers
from benchmarks.stage import PARTITIONS, Database, Stage, stage
from tenten.producers.till.customer_input import NewAddress
from tenten.producers.till.customers import create_customer
from tenten.producers.till.open_channel import open_channel
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS

P50_MS_MAX: Final = 25.0
P99_MS_MAX: Final = 80.0
CREATES_A_SECOND: Final = 100

_DATABASES: Final[Mapping[str, Database]] = {"houston": "postgresql", "seattle": "sqlite", "boston": "sqlite"}
_POLL_SECONDS: Final = 0.002
_NUMBERED_POSTGRESQL: Final = """
    SELECT customer_id::text FROM customers WHERE customer_id = ANY(%s::uuid[]) AND account_number IS NOT NULL
    """
_NUMBERED_SQLITE: Final = """
    SELECT customer_id FROM customers
    WHERE customer_id IN (SELECT value FROM json_each(?)) AND account_number IS NOT NULL
    """
_PRODUCER: Final[dict[str, str | int | bool]] = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 1,
}


class Stopwatch:
    """When each customer was created and when it got its number, by `time.perf_counter`. Thread-safe."""

    def __init__(self) -> None:
        self.pending: set[str] = set()
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def begin(self, customer_id: str) -> None:
        """Start the time of this customer."""
        self._begun[customer_id] = time.perf_counter()
        self.pending.add(customer_id)

    def end(self, customer_ids: Iterable[tuple[str]]) -> None:
        """Stop the time of these customers."""
        now = time.perf_counter()
        for (customer_id,) in customer_ids:
            self._ended[customer_id] = now
            self.pending.discard(customer_id)

    def milliseconds(self) -> list[tuple[float, float]]:
        """Start and duration in milliseconds, by customer."""
        return [(at, (self._ended[customer_id] - at) * 1000) for customer_id, at in self._begun.items()]


def latency(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """P7: the median and the 99th percentile, after a warm-up."""
    creates = scale.creates + scale.warm_up
    with stage(servers, {}) as on:
        legs = _kafka_legs(on, creates)[-scale.creates :]
    with store_processes(servers) as (on, processes):
        subject = creates_at_pace(on, processes, creates)[-scale.creates :]
        memory = sum(process.memory_peak_bytes() for process in processes)
    for name, percent, at_most in (("median", 50, P50_MS_MAX), ("99th percentile", 99, P99_MS_MAX)):
        yield Result(
            bar="P7",
            what=f"create in a store until its account number is there, {name}",
            against="the Kafka legs alone: produce, transaction, consume",
            unit="ms",
            subject=[percentile(subject, percent)],
            limit=[percentile(legs, percent)],
            at_most=at_most,
            memory_bytes=memory,
            settings={
                "creates": scale.creates,
                "creates a second": CREATES_A_SECOND,
                "stores": ", ".join(f"{store} on {database}" for store, database in _DATABASES.items()),
                "processes": "headquarters run, channel run for each store",
                "limit: consumer": loop.CONSUMER,
                "limit: producer": loop.PRODUCER,
                "limit: first producer": _PRODUCER,
            },
        )


@contextmanager
def store_processes(servers: Servers) -> Iterator[tuple[Stage, list[Process]]]:
    """Run headquarters and three stores."""
    with stage(servers, _DATABASES) as on, ExitStack() as running:
        processes = [running.enter_context(tenten(on, "headquarters", "run"))]
        processes += [running.enter_context(tenten(on, "channel", "run", store)) for store in _DATABASES]
        yield on, processes


def percentile(milliseconds: Sequence[float], percent: int) -> float:
    """The percentile of these values."""
    return quantiles(milliseconds, n=100, method="inclusive")[percent - 1]


def _in_order(stopwatches: Iterable[Stopwatch]) -> list[float]:
    """All durations, in the order of their starts."""
    timed = sorted(pair for stopwatch in stopwatches for pair in stopwatch.milliseconds())
    return [milliseconds for _, milliseconds in timed]


def _at_pace(count: int, per_second: float, act: Callable[[int], None]) -> None:
    """Call `act` with 0 to `count` - 1 at a steady pace; late calls are made up for."""
    begin_at = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, begin_at + number / per_second - time.perf_counter()))
        act(number)


# The subject.


def creates_at_pace(on: Stage, processes: list[Process], creates: int) -> list[float]:
    """Create customers in every store; milliseconds until each had its account number, in the order of creation."""
    stopwatches = {store: Stopwatch() for store in _DATABASES}
    done = Event()
    with ThreadPoolExecutor(2 * len(stopwatches)) as threads:
        watching = [
            threads.submit(_watch, on.channel_url(store), stopwatch, done) for store, stopwatch in stopwatches.items()
        ]
        creating = [
            threads.submit(_create, on, store, stopwatch, creates // len(stopwatches), processes)
            for store, stopwatch in stopwatches.items()
        ]
        try:
            for future in creating:
                future.result()
        finally:
            done.set()
        for future in watching:
            future.result()
    return _in_order(stopwatches.values())


def _create(on: Stage, store: str, stopwatch: Stopwatch, count: int, processes: list[Process]) -> None:
    """This store's share of the creates, after a first one that shows that all processes work."""
    with open_channel(on.settings, store) as channel:

        def create(number: int) -> None:
            customer = create_customer(
                channel,
                first_name="Ada",
                last_name=f"Lovelace {number}",
                email=f"ada.{store}.{number}@example.com",
                phone=f"713 555 {number:04d}",
                address=NewAddress(street=f"{number} Main St", city="Houston", state="TX", postal_code="77002"),
            )
            stopwatch.begin(customer.customer_id)

        create(count)
        wait_until(lambda: not stopwatch.pending, processes)
        _at_pace(count, CREATES_A_SECOND / len(_DATABASES), create)
        wait_until(lambda: not stopwatch.pending, processes)


def _watch(url: str, stopwatch: Stopwatch, done: Event) -> None:
    """Stop the time of each pending customer of this store once it has its account number."""
    on_server = make_url(url).drivername == "postgresql"
    seen: object = None
    with observer(url) as ask:
        while not done.is_set():
            pending = list(stopwatch.pending)
            if pending and on_server:
                stopwatch.end(ask(_NUMBERED_POSTGRESQL, (pending,)))
            elif pending and seen != (seen := (pending, ask("PRAGMA data_version"))):
                # There was a commit or a new pending customer since the last poll.
                stopwatch.end(ask(_NUMBERED_SQLITE, (json.dumps(pending),)))
            time.sleep(_POLL_SECONDS)


# The limit.


def _kafka_legs(on: Stage, records: int) -> list[float]:
    """Milliseconds from producing each record until it is read from the target of the bare loop, in order."""
    source, target = on.settings.topic(ASYNC_CUSTOMERS), on.settings.topic(CUSTOMERS)
    stopwatch = Stopwatch()
    done = Event()
    ready = list(events(records + 1))
    with bare_loop(on, source, target, on.settings.group("bare-loop")) as process, ThreadPoolExecutor(1) as threads:
        consuming = threads.submit(_consume, on, target, stopwatch, done)
        producer = Producer({"bootstrap.servers": on.servers.bootstrap_servers, **_PRODUCER})

        def produce(number: int) -> None:
            stopwatch.begin(ready[number].key.decode())
            producer.produce(source, ready[number].value, ready[number].key)
            producer.poll(0)

        try:
            produce(records)
            wait_until(lambda: not stopwatch.pending, [process])
            _at_pace(records, CREATES_A_SECOND, produce)
            wait_until(lambda: not stopwatch.pending, [process])
        finally:
            done.set()
            producer.close()
        consuming.result()
    return _in_order([stopwatch])


def _consume(on: Stage, topic: str, stopwatch: Stopwatch, done: Event) -> None:
    own = {"bootstrap.servers": on.servers.bootstrap_servers, "group.id": on.settings.group("legs")}
    consumer = Consumer({**own, **loop.CONSUMER})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    while not done.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            stopwatch.end([((message.key() or b"").decode(),)])
    consumer.close()
