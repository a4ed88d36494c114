"""The heartbeat of a channel, with its way from Avro."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A state of a channel that needs a person."""

    code: str
    """For programs: `duplicate_account_number`, `surplus_kept`, `key_not_accepted`; others may follow."""
    text: str
    """The problem and its remedy, without personal data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How far a channel is that reads all customers."""

    kind: str
    """For programs: `resync` or `first_load`; others may follow."""
    done: int
    """Records of the topic that were read, with those that compaction has removed."""
    total: int
    """The records that there were when it began."""
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The state of a channel, as the channel itself reports it. Every time is of the channel's clock."""

    channel_id: str
    release: str
    sent_at: datetime
    oldest_unsent_at: datetime | None = None
    oldest_unsettled_at: datetime | None = None
    """Of the changes that headquarters has neither settled nor rejected."""
    unsent: int | None = None
    unsettled: int | None = None
    customers: int | None = None
    complete_at: datetime | None = None
    """When the channel was last known to have read every partition of `customers` to its end."""
    problems: tuple[Problem, ...] = ()
    loading: Loading | None = None


def heartbeat_from_avro(heartbeat: Mapping[str, Any]) -> Heartbeat:
    """A heartbeat from a decoded Avro record."""
    fields = {name: heartbeat[name] for name in Heartbeat.__slots__}
    loading = heartbeat["loading"]
    return Heartbeat(
        **{
            **fields,
            "problems": tuple(Problem(**problem) for problem in heartbeat["problems"]),
            "loading": None if loading is None else Loading(**loading),
        }
    )
