"""Waiting until consumer groups have their partitions."""

from collections.abc import Sequence
from threading import Event
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.topics_admin import admin_client, topic_ids
from tenten.runtime.error_codes import is_transient
from tenten.runtime.settings import Settings
from tenten.workers import Worker

_ASK_AGAIN_SECONDS: Final = 0.2


def wait_for_assignment(settings: Settings, workers: Sequence[Worker], stop: Event) -> bool:
    """Wait until every partition that these workers read is assigned to a member of their groups; False if stopped.

    Raises: `KafkaRefused` if the groups may not be described.
    """
    admin = admin_client(settings)
    topics = {settings.topic(topic) for worker in workers for topic in worker.reads}
    partitions = {
        (name, partition)
        for name, topic in topic_ids(settings, topics).items()
        for partition in range(topic.partitions)
    }
    groups = [settings.group(group) for worker in workers if (group := worker.group_of()) is not None]
    while not stop.is_set():
        if partitions <= _assigned(admin, groups):
            return True
        stop.wait(_ASK_AGAIN_SECONDS)
    return False


def _assigned(admin: AdminClient, groups: Sequence[str]) -> set[tuple[str, int]]:
    """The partitions that are assigned to members of these groups; none while a group cannot be described yet."""
    assigned: set[tuple[str, int]] = set()
    for future in admin.describe_consumer_groups([*groups], request_timeout=REQUEST_SECONDS).values():
        try:
            description = call_kafka(future.result)
        except KafkaException as error:
            if not is_transient(error):
                raise
            continue
        for member in description.members:
            assigned.update((place.topic, place.partition) for place in member.assignment.topic_partitions)
    return assigned
