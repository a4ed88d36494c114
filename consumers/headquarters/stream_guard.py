"""Refuse to consume when headquarters' database is older than the consumed stream, or the topic has changed."""

from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from tenten.consumers.headquarters.positions import Stream, create_positions, read_positions
from tenten.kafka.topics_admin import check_partitions, topic_ids
from tenten.runtime.errors import DatabaseOlderThanStream
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import topics
from tenten.schemas.topics import Topic


class StreamGuard:
    """Checks a consumer group at each assignment (pass `check` as a session's `on_assigned`).

    `stream` is the stream of the latest assignment. `check_assigned` is called with the assigned partitions after the
    other checks have passed, and raises to refuse.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        group: str,
        topic: Topic,
        check_assigned: Callable[[Collection[int]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._group = settings.group(group)
        self._source = settings.topic(topic)
        self._check_assigned = check_assigned
        self.stream = Stream(consumer_group=self._group, topic_id="")

    def check(self, committed: Mapping[int, int | None]) -> None:
        """Compare the group's committed offsets of these partitions with the database's positions.

        An offset behind its position is normal after a crash between the commits: the records are repeated.
        Raises: `DatabaseOlderThanStream` when an offset is ahead; `TopicChanged` when partitions were added; errors of
        `check_assigned`.
        """
        topic = topic_ids(self._settings, [self._source])[self._source]
        self.stream = Stream(consumer_group=self._group, topic_id=topic.topic_id)
        with self._engine.begin() as headquarters:
            headquarters.execute(
                insert(topics)
                .values(topic=self._source, topic_id=topic.topic_id, partitions=topic.partitions)
                .on_conflict_do_nothing()
            )
            recorded = select(topics.c.partitions).where(
                topics.c.topic == self._source, topics.c.topic_id == topic.topic_id
            )
            check_partitions(self._source, headquarters.execute(recorded).scalar_one(), topic.partitions)
            create_positions(headquarters, self.stream, committed.keys())
            positions = read_positions(headquarters, self.stream)
        for partition, offset in committed.items():
            position = positions.get(partition, 0)
            if offset is not None and offset > position:
                raise DatabaseOlderThanStream(
                    f"the consumer group has read {self._source}/{partition} up to offset {offset}, headquarters' "
                    f"database only up to {position}: the database is older than the stream, perhaps restored from a "
                    "backup, and would assign account numbers twice. Restore a database that is as recent as the stream"
                )
        if self._check_assigned is not None:
            self._check_assigned(committed.keys())
