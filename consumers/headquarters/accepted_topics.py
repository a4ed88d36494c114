"""The topics that headquarters' database belongs to, by their ids: a recreated topic has another one."""

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from tenten.kafka.topics_admin import TopicInfo
from tenten.schemas.tables.headquarters import topics


def accept_topic(headquarters: Connection, name: str, topic: TopicInfo) -> None:
    """Record that this database and the topic with this id belong together. Idempotent."""
    row = {"topic": name, "topic_id": topic.topic_id, "partitions": topic.partitions}
    headquarters.execute(insert(topics).values(row).on_conflict_do_nothing())
