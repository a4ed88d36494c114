"""The guard at each assignment of a consumer group at headquarters: database and stream must belong together."""

from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from tenten.consumers.headquarters.positions import Stream, read_positions
from tenten.kafka.client import check_partitions, topic_ids
from tenten.runtime.errors import DatabaseOlderThanStream
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import topics
from tenten.schemas.topics import Topic


class StreamGuard:
    """What a group reads, as it was at the newest assignment; `check` is for a session's `on_assigned`.

    `also` is told the assigned partitions once they are found to fit, and may raise to stop.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        group: str,
        topic: Topic,
        also: Callable[[Collection[int]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._group = settings.group(group)
        self._source = settings.topic(topic)
        self._also = also
        self.stream = Stream(consumer_group=self._group, topic_id="")

    def check(self, committed: Mapping[int, int | None]) -> None:
        """Compare what the group has committed for these partitions with what the database has taken in.

        Behind is a crash between the commits, and repeats. Raises: `DatabaseOlderThanStream` when the group is ahead;
        `TopicChanged` when partitions were added; what `also` raises.
        """
        now = topic_ids(self._settings, [self._source])[self._source]
        self.stream = Stream(consumer_group=self._group, topic_id=now.topic_id)
        with self._engine.begin() as headquarters:
            headquarters.execute(
                insert(topics)
                .values(topic=self._source, topic_id=now.topic_id, partitions=now.partitions)
                .on_conflict_do_nothing()
            )
            noted = select(topics.c.partitions).where(topics.c.topic == self._source, topics.c.topic_id == now.topic_id)
            check_partitions(self._source, headquarters.execute(noted).scalar_one(), now.partitions)
            taken_in = read_positions(headquarters, self.stream)
        for partition, offset in committed.items():
            if offset is not None and offset > taken_in.get(partition, 0):
                raise DatabaseOlderThanStream(
                    f"the group has read {self._source}/{partition} up to {offset}, headquarters' database only up to "
                    f"{taken_in.get(partition, 0)}: the database is older than the stream, perhaps restored from a "
                    "backup, and would give numbers out again. Restore one that is as new as the stream"
                )
        if self._also is not None:
            self._also(committed.keys())
