"""What headquarters vouches for in its compacted topics."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """Up to which offsets a topic has every customer that headquarters had at that time."""

    topic: str
    """Without the prefix of the settings."""
    topic_id: str
    complete_offsets: tuple[int, ...]
    """By partition."""
    since: datetime


def topic_status_from_avro(status: Mapping[str, Any]) -> TopicStatus:
    """A status from a decoded Avro record."""
    return TopicStatus(
        topic=status["topic"],
        topic_id=status["topic_id"],
        complete_offsets=tuple(status["complete_offsets"]),
        since=status["since"],
    )
