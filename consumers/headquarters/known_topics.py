"""The topics that headquarters has read or written, by id: recreated topics and added partitions are noticed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenten.kafka.topics_admin import TopicInfo

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicChanges:
    """The differences between topics as they are and as the database knows them; names with prefix."""

    unknown: frozenset[str]
    """Topics that the database has never seen under any id."""
    recreated: frozenset[str]
    """Topics that the database knows, but not with this id."""
    repartitioned: Mapping[str, int]
    """The number of partitions before, of topics that have another number now."""


def topic_changes(driver: "psycopg.Connection[Any]", found: Mapping[str, TopicInfo]) -> TopicChanges:
    """Compare these topics (by name with prefix) with those that the database knows."""
    known: dict[str, dict[str, int]] = {name: {} for name in found}
    query = "SELECT topic, topic_id, partitions FROM topics WHERE topic = ANY(%s::text[])"
    for name, topic_id, partitions in driver.execute(query, (sorted(found),)):
        known[name][topic_id] = partitions
    recorded = {name: known[name].get(info.topic_id) for name, info in found.items()}
    return TopicChanges(
        unknown=frozenset(name for name in found if not known[name]),
        recreated=frozenset(name for name in found if known[name] and recorded[name] is None),
        repartitioned={
            name: partitions
            for name, partitions in recorded.items()
            if partitions is not None and partitions != found[name].partitions
        },
    )
