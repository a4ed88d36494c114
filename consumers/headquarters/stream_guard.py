"""Refuse to work when something has changed under a worker of headquarters: the database, a topic, the group's offsets.

The database is the truth: reading begins where its positions say. Only one thing makes it wrong: that it is older than
what headquarters has told its channels. So headquarters' newest outputs must be known to it. This is checked

- on every new connection, if the database is not the one that was checked last: a restored one, another server;
- where the group's offsets are ahead of its positions: the database is older, or somebody has moved the offsets;
- once a minute.

Besides, each SQL transaction of a batch compares the positions of its worker (`positions.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine
from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.accepted_topics import accept_topic
from tenten.consumers.headquarters.known_topics import TopicChanges, topic_changes
from tenten.consumers.headquarters.newest_outputs import OUTPUTS, outputs_lacking
from tenten.consumers.headquarters.positions import (
    Stream,
    create_positions,
    positions_ahead,
    raise_positions,
    read_positions,
)
from tenten.consumers.headquarters.refusals import (
    customers_recreated,
    customers_repartitioned,
    database_older,
    input_repartitioned,
    output_repartitioned,
)
from tenten.kafka.offsets import committed_offsets, earliest_offsets, last_stable_offsets
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.runtime.errors import KafkaRefused
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS, RETAIL_TRANSACTIONS, Topic
from tenten.sql.headquarters_engine import check_new_connections, database_identity
from tenten.sql.postgresql_driver import driver_of

if TYPE_CHECKING:
    import psycopg

log = get_logger(__name__)

INPUTS: Final[Mapping[str, Topic]] = {"headquarters": ASYNC_CUSTOMERS, "transactions": RETAIL_TRANSACTIONS}
"""By consumer group, without prefix: the topic that it reads. Both groups write to the same database."""


class StreamGuard:
    """Checks the database and the topics of one worker of headquarters, whose consumer group is a key of `INPUTS`.

    Pass `begin_reading` as a session's `on_assigned`. `stream` is the stream of the latest assignment, and `partitions`
    the number of partitions of its topic. `on_other_database` is called, by any thread, when the database is not the
    one that was checked last.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        writers: WriterSchemas,
        group: str,
        on_other_database: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._writers = writers
        self._source = settings.topic(INPUTS[group])
        self._inputs = {settings.group(name): settings.topic(topic) for name, topic in INPUTS.items()}
        self._outputs = frozenset(map(settings.topic, OUTPUTS))
        self._customers = settings.topic(CUSTOMERS)
        self._writes_customers = INPUTS[group] == ASYNC_CUSTOMERS
        self._on_other_database = on_other_database
        self._lock = Lock()
        self._identity: tuple[Any, ...] = ()
        self._was_missing = False
        self.stream = Stream(consumer_group=settings.group(group), topic_id="")
        self.partitions = 0

    def check_connections(self) -> None:
        """Check each new connection from now on, and the first one at once.

        Raises, as does every later use of a new connection: `DatabaseOlderThanStream`; `TopicChanged`; `KafkaRefused`,
        `KafkaException`; errors of the database.
        """
        check_new_connections(self._engine, self._check_connection)
        with self._engine.connect():
            pass

    def _check_connection(self, driver: "psycopg.Connection[Any]") -> None:
        """Check the database, if it is not the one that was checked last."""
        with self._lock:
            identity = database_identity(driver)
            if identity != self._identity:
                self._check_database(driver, self._topics())
                self._identity = identity
                self._on_other_database()

    def check_again(self) -> bool:
        """Check the topics and the database, once a minute; true if the topic was recreated and must be read anew.

        Raises: as `check_connections`; for a missing topic only the second time, since it may be on the way.
        """
        try:
            found = self._topics()
        except KafkaRefused:
            if self._was_missing:
                raise
            self._was_missing = True
            return False
        self._was_missing = False
        if self.stream.topic_id not in ("", found[self._source].topic_id):
            return True
        with self._engine.connect() as connection:
            self._check_database(driver_of(connection), found)
        return False

    def _topics(self) -> dict[str, TopicInfo]:
        return topic_ids(self._settings, [*self._inputs.values(), *self._outputs])

    def _check_database(self, driver: "psycopg.Connection[Any]", found: Mapping[str, TopicInfo]) -> None:
        """Compare the database with the outputs, the offsets and the topics. The offsets are read first."""
        committed = {
            Stream(consumer_group=group, topic_id=found[topic].topic_id): committed_offsets(
                self._settings, group, topic, found[topic].partitions
            )
            for group, topic in self._inputs.items()
        }
        self._check_outputs(driver, found)
        changes = topic_changes(driver, found)
        streams = [stream for stream in committed if self._topic_of(stream) not in changes.recreated]
        if any(positions_ahead(driver, stream, committed[stream]) for stream in streams):
            self._check_outputs_are_old(changes)
        self._check_topics(found, changes)
        driver.commit()

    def _topic_of(self, stream: Stream) -> str:
        return self._inputs[stream.consumer_group]

    def _check_outputs(self, driver: "psycopg.Connection[Any]", found: Mapping[str, TopicInfo]) -> None:
        """Raises: `DatabaseOlderThanStream` when the database lacks one of the newest outputs."""
        lacking = outputs_lacking(self._settings, self._writers, driver, found)
        if lacking:
            raise database_older(f"it lacks {lacking}")

    def _check_outputs_are_old(self, changes: TopicChanges) -> None:
        """Offsets are ahead of the database: only outputs that were not recreated meanwhile prove that it is not older.

        Raises: `DatabaseOlderThanStream`.
        """
        new = self._outputs & (changes.recreated | changes.unknown)
        if new:
            raise database_older(
                f"a consumer group has read further than it, and it has never seen {', '.join(sorted(new))} as they are"
            )

    def _check_topics(self, found: Mapping[str, TopicInfo], changes: TopicChanges) -> None:
        """Raises: `TopicChanged` for partitions that were added, or for a recreated topic of customers."""
        for name, before in changes.repartitioned.items():
            now = found[name].partitions
            if name == self._customers:
                raise customers_repartitioned(name, before, now)
            refusal = output_repartitioned if name in self._outputs else input_repartitioned
            raise refusal(name, before, now)
        if self._writes_customers and self._customers in changes.recreated:
            raise customers_recreated(self._customers)

    def begin_reading(self, committed: Mapping[int, int | None]) -> dict[int, int]:
        """Check the topics and the assigned partitions; return where reading of each of these begins.

        `committed` has the offsets that the group has committed. Reading begins there; at the database's position where
        there is no offset, or one that is ahead; and at the beginning of a partition that does not have that offset. An
        offset behind its position is normal after a crash between the commits: the records are repeated.
        Raises: as `check_connections`.
        """
        found = self._topics()
        source = found[self._source]
        self.stream = Stream(consumer_group=self.stream.consumer_group, topic_id=source.topic_id)
        self.partitions = source.partitions
        with self._engine.begin() as headquarters:
            changes = topic_changes(driver_of(headquarters), found)
            self._check_topics(found, changes)
            create_positions(headquarters, self.stream, committed.keys())
            positions = read_positions(headquarters, self.stream)
        if self._source in changes.recreated:
            # The offsets are those of the deleted topic.
            committed = dict.fromkeys(committed)
        starts = {
            number: positions[number] if offset is None else min(offset, positions[number])
            for number, offset in committed.items()
        }
        ahead = [number for number, offset in committed.items() if offset is not None and offset > starts[number]]
        if ahead:
            self._check_moved_offsets(found, changes, ahead)
        starts = self._available(starts)
        with self._engine.begin() as headquarters:
            raise_positions(headquarters, self.stream, starts)
            self._remember_topics(headquarters, found, changes)
        return starts

    def _check_moved_offsets(self, found: Mapping[str, TopicInfo], changes: TopicChanges, ahead: Iterable[int]) -> None:
        """Raises: `DatabaseOlderThanStream`, unless headquarters' outputs prove that only the offsets have moved."""
        with self._engine.connect() as connection:
            self._check_outputs(driver_of(connection), found)
        self._check_outputs_are_old(changes)
        log.warning("group_offsets_moved", topic=self._source, partitions=sorted(ahead))

    def _available(self, starts: Mapping[int, int]) -> dict[int, int]:
        """These offsets, or the beginning of each partition that does not have its offset."""
        begins = earliest_offsets(self._settings, self._source, self.partitions)
        ends = last_stable_offsets(self._settings, self._source, self.partitions)
        lost = [number for number, start in starts.items() if not begins[number] <= start <= ends[number]]
        # A new group begins where the topic does.
        if any(starts[number] > 0 for number in lost):
            log.warning("records_lost", topic=self._source, partitions=sorted(lost))
        return {number: begins[number] if number in lost else start for number, start in starts.items()}

    def _remember_topics(self, headquarters: Connection, found: Mapping[str, TopicInfo], changes: TopicChanges) -> None:
        """Store the ids of the worker's topic and of the outputs, except that of recreated customers."""
        for name in (self._source, *sorted(self._outputs)):
            if name in changes.unknown:
                accept_topic(headquarters, name, found[name])
            elif name in changes.recreated and name != self._customers:
                log.warning("topic_recreated", topic=name)
                accept_topic(headquarters, name, found[name])
