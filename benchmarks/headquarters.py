"""P5 and P6: the customers worker against a bare loop of Kafka transactions, and two processes against one.

Subject and limit are consumer groups, measured in the same way: the processes are started and warmed up with the first
events; then all events become visible at once, and the clock stops when the group has committed the last of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

from benchmarks import bare_loop as loop
from benchmarks.customers import CHANNELS, Record, events
from benchmarks.filling import Filling
from benchmarks.measuring import Database, Result, Run, Scale, Settings, memory_peak, rates
from benchmarks.processes import Process, bare_loop, tenten, wait_until
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import PARTITIONS, Authentication, Stage, stage
from tenten.kafka.transaction_session import BatchLimits
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS

AT_LEAST_P5: Final = 0.18
AT_LEAST_P6: Final = 1.5

_WARM_UP_SEED: Final = 7


def warm_up_broker(servers: Servers, scale: Scale) -> None:
    """Run the limit before anything is measured: a fresh broker occupies half of the cores with JIT compilation."""
    for _ in range(scale.runs):
        _limit(servers, scale)


def headquarters(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """P5, and P6 for continuous sequences and for others."""
    settings: Settings = {
        "events": scale.customers,
        "channels": len(CHANNELS),
        "partitions": PARTITIONS,
        "records a transaction": BatchLimits().records_max,
    }
    if "P5" in bars:
        limits, runs = [], []
        for _ in range(scale.runs):
            limits.append(_limit(servers, scale))
            runs.append(new_customers(servers, scale, processes=1, continuous=True))
        yield Result(
            bar="P5",
            what="headquarters, complete: new customers, one process",
            against="bare consume-produce Kafka transactions",
            unit="k/s",
            subject=rates(runs),
            limit=rates(limits),
            at_least=AT_LEAST_P5,
            memory_bytes=memory_peak(runs),
            settings={
                **settings,
                "limit: records a transaction": loop.RECORDS_MAX,
                "limit: consumer": loop.CONSUMER,
                "limit: producer": loop.PRODUCER,
            },
        )
    if "P6" in bars:
        for continuous in (True, False):
            yield _two_against_one(servers, scale, settings, continuous)


def _two_against_one(servers: Servers, scale: Scale, settings: Settings, continuous: bool) -> Result:
    alone, together = [], []
    for _ in range(scale.runs):
        alone.append(new_customers(servers, scale, processes=1, continuous=continuous))
        together.append(new_customers(servers, scale, processes=2, continuous=continuous))
    numbers = "continuous" if continuous else "not continuous"
    return Result(
        bar="P6",
        what=f"headquarters, two processes, numbers {numbers}",
        against="one process",
        unit="k/s",
        subject=rates(together),
        limit=rates(alone),
        at_least=AT_LEAST_P6,
        memory_bytes=memory_peak(together),
        settings={**settings, "continuous": continuous},
    )


def new_customers(
    servers: Servers,
    scale: Scale,
    *,
    processes: int,
    continuous: bool,
    authentication: Authentication | None = None,
) -> Run:
    """Give new customers their numbers with this many processes of the customers worker."""
    channels: dict[str, Database] = dict.fromkeys(CHANNELS, "sqlite")
    with (
        stage(servers, channels, continuous=continuous, authentication=authentication) as on,
        ExitStack() as running,
    ):
        started = [running.enter_context(tenten(on, "headquarters", "run")) for _ in range(processes)]
        return _group_run(on, started, on.settings.group("headquarters"), scale)


def _limit(servers: Servers, scale: Scale) -> Run:
    with stage(servers, {}) as on:
        source, target = on.settings.topic(ASYNC_CUSTOMERS), on.settings.topic(CUSTOMERS)
        group = on.settings.group("bare-loop")
        with bare_loop(on, source, target, group) as process:
            return _group_run(on, [process], group, scale)


def _group_run(on: Stage, processes: list[Process], group: str, scale: Scale) -> Run:
    admin = AdminClient({"bootstrap.servers": on.servers.bootstrap_servers, "log_level": 3})
    wait_until(lambda: _shares(admin, group) == _even_shares(len(processes)), processes, pause_seconds=0.2)
    _release_and_wait(on, admin, processes, group, events(scale.warm_up, seed=_WARM_UP_SEED))
    checkpoint(on.servers)
    seconds, records = _release_and_wait(on, admin, processes, group, events(scale.customers))
    memory = sum(process.memory_peak_bytes() for process in processes)
    return Run(records=records, seconds=seconds, memory_bytes=memory)


def _release_and_wait(
    on: Stage, admin: AdminClient, processes: list[Process], group: str, records: Iterator[Record]
) -> tuple[float, int]:
    """Seconds from the commit of the records until the group has committed the last one; and their number."""
    topic = on.settings.topic(ASYNC_CUSTOMERS)
    filling = Filling(on.servers.bootstrap_servers, topic, records, "CustomerCreated", on.signers)
    started_at = filling.release()
    ended_at = wait_until(lambda: has_committed(admin, group, filling.next_offsets), processes)
    return ended_at - started_at, filling.records


def _even_shares(members: int) -> list[int]:
    return [PARTITIONS // members] * members


def _shares(admin: AdminClient, group: str) -> Sequence[int]:
    """How many partitions each member of the group has."""
    try:
        description = admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    except KafkaException:
        return []
    return [len(member.assignment.topic_partitions) for member in description.members]


def has_committed(admin: AdminClient, group: str, next_offsets: dict[int, int]) -> bool:
    """Whether the group has committed these offsets."""
    futures = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=10)
    committed = {position.partition: position.offset for position in futures[group].result().topic_partitions}
    return all(committed.get(partition, -1) >= offset for partition, offset in next_offsets.items())
