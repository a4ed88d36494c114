"""A new topic is complete from its beginning: as long as headquarters has no customer, none can be missing there."""

from sqlalchemy import Engine, exists, select

from tenten.kafka.topic_status import declare_complete, read_topic_status
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import customers
from tenten.schemas.topics import CUSTOMERS


def declare_new_topic_complete(settings: Settings, engine: Engine) -> None:
    """Declare `customers` complete if the database has no customer yet. Idempotent.

    Every customer is published after it was stored, so all that follow go to this topic or a later one: the id is asked
    first. Raises: `KafkaRefused`, `KafkaException`; errors of the database.
    """
    name = settings.topic(CUSTOMERS)
    topic = topic_ids(settings, [name])[name]
    with engine.begin() as headquarters:
        if headquarters.scalar(select(exists().select_from(customers))):
            return
    status = read_topic_status(settings, CUSTOMERS)
    if status is None or status.topic_id != topic.topic_id:
        declare_complete(settings, CUSTOMERS, topic.topic_id, dict.fromkeys(range(topic.partitions), 0))
