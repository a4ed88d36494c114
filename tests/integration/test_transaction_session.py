"""The exactly-once loop against a real broker: aborts, fencing, rebalances, and a broker that dies."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import psycopg
import pytest
from confluent_kafka import Consumer, ConsumerGroupState, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from tenten import local
from tenten.kafka import group_member, transaction_session
from tenten.kafka.client_config import consumer_configuration, producer_configuration
from tenten.kafka.transaction_session import Batch, BatchLimits, TransactionSession
from tenten.kafka.transactional_producer import Outputs
from tenten.runtime.settings import Settings
from tests.faults.evidence import read_topic
from tests.scenes import DEADLINE_SECONDS
from tests.services import directory_for_server
from tests.waiting import wait_for

PARTITIONS: Final = 2
BATCH_RECORDS: Final = 20
POLL_SECONDS_MAX: Final = 6
"""A member that does not poll for this time is evicted: the shortest that the client allows."""

Step = Callable[[Batch], None]


def nothing(_: Batch) -> None:
    """A step that does nothing."""


@dataclass(slots=True)
class Stage:
    """A topic to read, a topic to write, and a record of the attempts."""

    bootstrap_servers: str
    prefix: str
    attempts: list[list[bytes]] = field(default_factory=list)
    """The values of each attempted batch, in order."""
    assigned: list[dict[int, int | None]] = field(default_factory=list)
    poll_seconds_max: int = POLL_SECONDS_MAX
    before_reading: Callable[[], None] = lambda: None
    """Called when reading is to begin, before the answer."""

    def set_up(self) -> None:
        """Create both topics."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        new = [NewTopic(self.prefix + name, num_partitions=PARTITIONS) for name in ("source", "sink")]
        for future in admin.create_topics(new).values():
            future.result(DEADLINE_SECONDS)

    def write(self, count: int, name: str = "record") -> list[bytes]:
        """Write this many distinct records to the source."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "acks": "all"})
        values = [f"{name} {number}".encode() for number in range(count)]
        for value in values:
            producer.produce(f"{self.prefix}source", value, value)
        assert producer.flush(DEADLINE_SECONDS) == 0
        return values

    def begin_reading(self, committed: dict[int, int | None]) -> dict[int, int]:
        """Record the call; reading begins at the committed offsets."""
        self.assigned.append(committed)
        self.before_reading()
        return {partition: offset or 0 for partition, offset in committed.items()}

    @property
    def copied(self) -> list[bytes]:
        """The committed values of the sink."""
        return [record.value or b"" for record in read_topic(self.bootstrap_servers, self.prefix, "sink")]

    def copies(self, values: list[bytes]) -> Callable[[], bool]:
        """A condition that holds once all of these are copied."""
        return lambda: len(self.copied) >= len(values)

    def committed(self) -> dict[int, int]:
        """The offsets that the group has committed."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": f"{self.prefix}group"})
        partitions = [TopicPartition(f"{self.prefix}source", partition) for partition in range(PARTITIONS)]
        positions = consumer.committed(partitions, DEADLINE_SECONDS)
        consumer.close()
        return {position.partition: position.offset for position in positions if position.offset >= 0}

    @contextmanager
    def copier(self, *, before: Step = nothing, within: Step = nothing, slot: int = 0) -> "Iterator[Copier]":
        """Run a member of the group that copies source to sink, with a step before and within each transaction."""
        copier = Copier(self, before, within, slot)
        try:
            yield copier
        finally:
            copier.stop.set()
            copier.thread.join(DEADLINE_SECONDS)
            assert not copier.thread.is_alive()
        if copier.failure is not None:
            raise copier.failure


class Copier:
    """A session in a thread."""

    def __init__(self, stage: Stage, before: Step, within: Step, slot: int) -> None:
        self.stop = Event()
        self.failure: BaseException | None = None
        self._stage = stage
        self._steps = before, within
        settings = Settings.model_validate(
            {
                "kafka": {
                    "bootstrap.servers": stage.bootstrap_servers,
                    "session.timeout.ms": "6000",
                    "max.poll.interval.ms": str(stage.poll_seconds_max * 1000),
                }
            }
        )
        self._session = TransactionSession(
            name="copier",
            topic=f"{stage.prefix}source",
            consumer=consumer_configuration(settings, **{"group.id": f"{stage.prefix}group"}),
            producer=producer_configuration(settings),
            transactional_id=lambda: f"{stage.prefix}{slot}",
            on_assigned=stage.begin_reading,
            limits=BatchLimits(records_max=BATCH_RECORDS),
            stop=self.stop,
        )
        self.thread = Thread(target=self._run, name=f"copier-{slot}")
        self.thread.start()

    def _run(self) -> None:
        try:
            self._copy()
        except BaseException as error:  # noqa: BLE001  # raised again in the test's thread
            self.failure = error

    def _copy(self) -> None:
        before, within = self._steps
        with self._session as session:
            for batch in session.batches():
                with session.attempt(batch):
                    self._stage.attempts.append([_value(message.value()) for message in batch.messages])
                    before(batch)
                    with session.transaction(batch) as out:
                        self._send(out, batch)
                        within(batch)

    def _send(self, out: Outputs, batch: Batch) -> None:
        for message in batch.messages:
            out.send(f"{self._stage.prefix}sink", _value(message.key()), _value(message.value()))


def _value(value: Any) -> bytes:
    return bytes(value)


class Once:
    """A step that runs at the n-th batch only."""

    def __init__(self, at: int, step: Step) -> None:
        self._left = at
        self._step = step

    def __call__(self, batch: Batch) -> None:
        """Run the step at its batch."""
        self._left -= 1
        if self._left == 0:
            self._step(batch)


def connection_lost(_: Batch) -> None:
    """Fail as psycopg does when the database stops."""
    raise psycopg.OperationalError("the connection is lost")


@pytest.fixture
def stage(bootstrap_servers: str, prefix: str) -> Stage:
    """Topics of this test's own on the shared broker."""
    stage = Stage(bootstrap_servers, prefix)
    stage.set_up()
    return stage


def test_everything_is_copied_once(stage: Stage) -> None:
    """Without faults: each record once, offsets at the end, `on_assigned` called with the committed offsets."""
    # given
    values = stage.write(100)

    # when
    with stage.copier():
        wait_for(stage.copies(values), "copies")
    with stage.copier():
        wait_for(stage.copies([*values, *stage.write(1, "last")]), "the last copy")

    # then
    assert Counter(stage.copied) == Counter([*values, b"last 0"])
    assert sum(stage.committed().values()) == 101
    assert stage.assigned[0] == {0: None, 1: None}
    assert sum(offset or 0 for offset in stage.assigned[1].values()) == 100


def test_batch_that_takes_too_long_is_repeated_in_halves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are too large for the time they have become smaller until they fit, and grow again afterwards."""
    # given
    monkeypatch.setattr(transaction_session, "SLOW_SECONDS", 0.0)
    values = stage.write(100)
    is_slow = True

    def times_out(batch: Batch) -> None:
        if is_slow and len(batch.messages) > BATCH_RECORDS // 4:
            connection_lost(batch)

    # when
    with stage.copier(before=times_out):
        wait_for(stage.copies(values), "copies")
        is_slow = False
        further = stage.write(100, "further")
        wait_for(stage.copies([*values, *further]), "further copies")

    # then
    assert Counter(stage.copied) == Counter([*values, *further])
    assert max(len(batch) for batch in stage.attempts if b"further 99" in batch or b"further 98" in batch) > (
        BATCH_RECORDS // 4
    )


def test_transient_failure_repeats_the_batch(stage: Stage) -> None:
    """After a short outage of the database the batch is repeated: nothing is skipped or copied twice."""
    # given
    values = stage.write(100)

    # when
    with stage.copier(before=Once(2, connection_lost)):
        wait_for(stage.copies(values), "copies")

    # then
    assert Counter(stage.copied) == Counter(values)
    failed, again = stage.attempts[1], [value for batch in stage.attempts[2:] for value in batch]
    assert Counter(failed) - Counter(again) == Counter()
    assert len(stage.attempts[0]) + len(again) == len(values)


def test_outputs_of_an_aborted_transaction_are_invisible(stage: Stage) -> None:
    """A failure within a transaction aborts outputs and offsets; the batch is repeated."""
    # given
    values = stage.write(30)
    failing = Event()
    failing.set()
    seen: list[tuple[int, dict[int, int]]] = []

    def fail(batch: Batch) -> None:
        if failing.is_set():
            connection_lost(batch)

    # when
    with stage.copier(within=fail):
        wait_for(lambda: len(stage.attempts) > 3, "attempts")
        seen.append((len(stage.copied), stage.committed()))
        failing.clear()
        wait_for(stage.copies(values), "copies")

    # then
    assert seen == [(0, {0: 0, 1: 0})]
    assert Counter(stage.copied) == Counter(values)
    assert sum(stage.committed().values()) == 30


def test_permanent_failure_ends_the_session(stage: Stage) -> None:
    """Other errors are raised; the transaction is aborted and nothing is consumed."""
    # given
    stage.write(5)

    def break_down(_: Batch) -> None:
        raise ZeroDivisionError

    # when / then
    with pytest.raises(ZeroDivisionError), stage.copier(within=break_down) as copier:
        wait_for(lambda: not copier.thread.is_alive(), "the end")
    assert stage.copied == []
    assert stage.committed() == {0: 0, 1: 0}


def test_fenced_producer_is_replaced(stage: Stage) -> None:
    """Another producer with the same transactional id fences this one; a new one repeats the batch."""
    # given
    values = stage.write(100)

    def fence(_: Batch) -> None:
        other = Producer({"bootstrap.servers": stage.bootstrap_servers, "transactional.id": f"{stage.prefix}0"})
        other.init_transactions(DEADLINE_SECONDS)

    # when
    with stage.copier(within=Once(2, fence)):
        wait_for(stage.copies(values), "copies")

    # then
    assert Counter(stage.copied) == Counter(values)
    assert len(stage.attempts) > len(values) / BATCH_RECORDS


def test_offsets_of_an_older_generation_are_refused(stage: Stage) -> None:
    """A member joins during a batch: the offsets of that batch are refused, and it is repeated once."""
    # given
    values = stage.write(100)
    joined = Event()
    others: list[Copier] = []

    def wait_for_other_member(_: Batch) -> None:
        joined.set()
        wait_for(lambda: _members(stage) == 2, "the other member")

    # when
    with stage.copier(within=Once(2, wait_for_other_member)):
        assert joined.wait(DEADLINE_SECONDS)
        with stage.copier(slot=1) as other:
            others.append(other)
            wait_for(stage.copies(values), "copies")

    # then
    assert Counter(stage.copied) == Counter(values)
    tried = Counter(value for batch in stage.attempts for value in batch)
    assert all(tried[value] > 1 for value in stage.attempts[1])


def _members(stage: Stage) -> int:
    """The size of the group once it is stable."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
    (future,) = admin.describe_consumer_groups([f"{stage.prefix}group"]).values()
    group = future.result(DEADLINE_SECONDS)
    return len(group.members) if group.state == ConsumerGroupState.STABLE else 0


def test_member_that_joins_before_the_first_offsets_are_committed_stops_nobody(stage: Stage) -> None:
    """A new group commits where it begins; a rebalance at this moment makes its generation old, once."""
    # given
    values = stage.write(100)
    began = Event()

    def wait_for_other_member() -> None:
        if not began.is_set():
            began.set()
            wait_for(lambda: _members(stage) == 2, "the other member")

    stage.before_reading = wait_for_other_member
    # The group's eviction of a member that does not poll would help, after minutes.
    stage.poll_seconds_max = 2 * int(DEADLINE_SECONDS)

    # when
    with stage.copier():
        assert began.wait(DEADLINE_SECONDS)
        with stage.copier(slot=1):
            wait_for(stage.copies(values), "copies")

    # then
    assert Counter(stage.copied) == Counter(values)


def test_joining_and_leaving_members_copy_everything_once(stage: Stage) -> None:
    """During many rebalances each record is copied once and no member stops."""
    # given
    values = []

    # when
    with stage.copier():
        for number in range(1, 4):
            values += stage.write(150, f"round {number}")
            with stage.copier(slot=number):
                wait_for(stage.copies(values[:-75]), "some copies")
        wait_for(stage.copies(values), "copies")

    # then
    assert Counter(stage.copied) == Counter(values)


def test_member_whose_membership_has_ended_joins_with_a_new_client(stage: Stage) -> None:
    """As after a freeze: a batch took longer than the group allows; each record is copied once in the end."""
    # given
    values = stage.write(100)

    # when
    with capture_logs() as events, stage.copier(before=Once(2, lambda _: time.sleep(POLL_SECONDS_MAX + 1))):
        wait_for(lambda: "group_rejoined" in [event["event"] for event in events], "a new client")
        wait_for(stage.copies(values), "copies")

    # then
    assert Counter(stage.copied) == Counter(values)


def test_member_without_partitions_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with more members than partitions has answered all of them: none joins again."""
    monkeypatch.setattr(group_member, "JOIN_SECONDS_MAX", 4.0)
    values = stage.write(100)
    with capture_logs() as events, ExitStack() as ends:
        for slot in range(PARTITIONS + 1):
            ends.enter_context(stage.copier(slot=slot))
        wait_for(lambda: [] in [event.get("partitions") for event in events], "a member without partitions")
        time.sleep(group_member.JOIN_SECONDS_MAX + 1)
        wait_for(stage.copies(values), "copies")
    assert "group_rejoined" not in [event["event"] for event in events]


def test_session_recovers_after_a_restart_of_the_broker(prefix: str) -> None:
    """SIGKILL of the broker within a transaction: the session retries, recovers, and copies each record once."""
    with directory_for_server("kafka") as directory:
        # given
        broker = local.start_kafka(directory)
        try:
            stage = Stage(broker.bootstrap_servers, prefix)
            stage.set_up()
            values = stage.write(200)

            # when
            with stage.copier(within=Once(3, lambda _: _kill(directory))):
                wait_for(lambda: len(stage.attempts) >= 3, "the third batch")
                wait_for(lambda: local.kafka_status(directory) is None, "the end of the broker")
                assert local.start_kafka(directory).bootstrap_servers == broker.bootstrap_servers
                wait_for(stage.copies(values), "copies")

            # then
            assert Counter(stage.copied) == Counter(values)
        finally:
            local.stop_kafka(directory, grace_seconds=0)


def _kill(directory: Path) -> None:
    local.stop_kafka(directory, grace_seconds=0)
