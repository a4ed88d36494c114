"""Changes of one channel of headquarters' registry by a person: each with its entry in the history."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, select, text

from tenten.registry.apply import lock_registry, record_changes
from tenten.registry.values import CHANNELS, Change, Differences
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import InputRejected, SettingsError
from tenten.schemas.tables.headquarters import channels


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who changes something, and with which command."""

    source: str
    """The command, for the history."""
    operator: str | None = None


@contextmanager
def changing_channel(engine: Engine, channel_id: str, by: By) -> Generator[Connection]:
    """A transaction that changes a channel of the registry, one at a time.

    Raises: `SettingsError` for a channel that headquarters does not have; `InputRejected` for an operator that cannot
    be stored.
    """
    broken = [*operator_violations(by.operator)]
    if broken:
        raise InputRejected(broken)
    with engine.begin() as headquarters:
        lock_registry(headquarters)
        check_known(headquarters, channel_id)
        yield headquarters


def check_known(headquarters: Connection, channel_id: str) -> None:
    """Raises: `SettingsError` for a channel that headquarters does not have."""
    if headquarters.scalar(select(channels.c.channel_id).where(channels.c.channel_id == channel_id)) is None:
        raise SettingsError(
            f"headquarters does not have the channel {channel_id}: add [channels.{channel_id}] to the file of its "
            "settings, and run `tenten settings apply FILE`"
        )


def note_acceptance(headquarters: Connection, channel_id: str) -> None:
    """Note that the key of a channel has changed, or a suspension of it has begun or ended: always a later time.

    Its store learns from it that it must send again what headquarters has not settled.
    """
    headquarters.execute(_NOTE_ACCEPTANCE, {"channel_id": channel_id})


_NOTE_ACCEPTANCE: Final = text(
    """
    UPDATE channels
    SET acceptance_changed_at = greatest(clock_timestamp(), acceptance_changed_at + interval '1 microsecond')
    WHERE channel_id = :channel_id
    """
)


def note_change(headquarters: Connection, setting: str, by: By, *, before: Any, after: Any) -> None:
    """Write a change of a setting (`dallas.token`) into the history, and notify the workers at the commit."""
    change = Change(setting=f"{CHANNELS}.{setting}", before=before, after=after)
    changes = Differences(changed=(change,))
    record_changes(headquarters, changes, operator=by.operator, source=by.source, now=datetime.now(UTC))
