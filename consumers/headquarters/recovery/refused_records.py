"""The records that headquarters has refused, from its dead letters: recovery takes back what was accepted.

A restored database may not know that a key was revoked since, so the dead letters are read.
"""

from tenten.consumers.headquarters.authenticity import UNANSWERED
from tenten.consumers.headquarters.dead_letters import origin_of
from tenten.consumers.headquarters.recovery.topic_batches import Progress, topic_batches
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic


def refused_records(settings: Settings, dead_letters: Topic, progress: Progress) -> set[tuple[int, int]]:
    """Partition and offset of the records that were not authentic, or of a suspended channel.

    Raises: `KafkaRefused`, `KafkaException`.
    """
    refused = set[tuple[int, int]]()
    for messages in topic_batches(settings, dead_letters, progress):
        origins = map(origin_of, messages)
        refused.update((at.partition, at.offset) for at in origins if at is not None and at.reason in UNANSWERED)
    return refused
