"""The heartbeats of channels: the last one of each that the channel has written itself.

A heartbeat is believed by the rules for events (`authentication`): one that somebody else has written in a channel's
name changes nothing but that it is counted as refused. Compaction keeps the newest record of a channel, whoever wrote
it: a forged one may hide the genuine one before it from a reader that begins, until the next genuine one comes.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import Message
from structlog import get_logger

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.consumers.headquarters.known_keys import NO_KEYS, KnownKeys
from tenten.consumers.headquarters.record_writers import Mode, is_believed, signer_of
from tenten.identity.signing import KID
from tenten.schemas.messages import Heartbeat, Loading, heartbeat_from_avro
from tenten.schemas.topics import CHANNEL_STATUS
from tenten.status.values import Problem

log = get_logger(__name__)

CHANNELS_MAX: Final = 20_000
"""Channels that are heard; a writer of made-up heartbeats must not fill the memory."""

HEARTBEAT_REFUSED: Final = "heartbeat_refused"
"""The code of the problem."""

REFUSED_SECONDS: Final = 600.0
"""How long a refused heartbeat is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The last heartbeat of a channel, and when the broker received it, by the broker's clock."""

    heartbeat: Heartbeat
    at: datetime
    kid: str | None = None
    """The key with which it is signed; None if nobody has signed it."""

    def age_seconds(self, time: datetime | None, now: datetime) -> float | None:
        """How long ago a time of the heartbeat was, whatever the channel's clock shows; None if there is no time."""
        if time is None:
            return None
        return max(0.0, (self.heartbeat.sent_at - time + (now - self.at)).total_seconds())

    def moment(self, time: datetime | None) -> datetime | None:
        """A time of the heartbeat by the broker's clock, whatever the channel's shows; None if there is no time."""
        return None if time is None else self.at - max(timedelta(), self.heartbeat.sent_at - time)

    @property
    def loading(self) -> Loading | None:
        """How far a load of all customers is; its beginning is a time of the broker's clock."""
        load = self.heartbeat.loading
        started_at = None if load is None else self.moment(load.started_at)
        return None if load is None or started_at is None else replace(load, started_at=started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The last heartbeat in a channel's name that the channel has not written."""

    channel_id: str
    at: datetime
    """When the broker received it."""
    kid: str | None
    """The key that its header names; None without one."""


@dataclass(frozen=True, slots=True)
class Received:
    """A record of `channel-status`. Of a large fleet's the topic has a hundred thousand, of which few are decoded."""

    message: Message
    writers: WriterSchemas

    @property
    def channel_id(self) -> str:
        """The channel in whose name it is: its key."""
        return (self.message.key() or b"").decode(errors="replace")

    @property
    def kid(self) -> str | None:
        """The key that its header names; None without one."""
        headers: Any = self.message.headers() or ()
        return (dict(headers).get(KID) or b"").decode(errors="replace") or None

    @property
    def at(self) -> datetime:
        """When the broker received it."""
        return datetime.fromtimestamp(self.message.timestamp()[1] / 1000, UTC)

    def read(self) -> Heard | None:
        """The heartbeat; None if there is none that can be read, in the name of this channel.

        May block while a schema is looked up; raises what `writers` raises when that fails.
        """
        try:
            record = self.writers.decode(self.message.value() or b"", contract(CHANNEL_STATUS.value))
        except Unreadable:
            return None
        heartbeat = heartbeat_from_avro(record)
        return Heard(heartbeat=heartbeat, at=self.at, kid=self.kid) if heartbeat.channel_id == self.channel_id else None


@dataclass(slots=True, kw_only=True)
class Heartbeats:
    """What was heard and refused so far, from the records of `channel-status` in their order. One thread at a time."""

    mode: Mode
    is_logged: bool = False
    """Whether refused heartbeats are logged: once for each channel, until none has come for ten minutes."""
    heard: dict[str, Heard] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    """Those after the first heartbeat with the channel's present key: what came before that may be the channel's own,
    from the time when it had none, or another one.
    """

    def take(self, records: Iterable[Received], keys: KnownKeys | None) -> None:
        """Take these records in. `keys`: None where headquarters' database is not there, and nothing can be checked.

        Of the records that are believed only the last one of each channel is decoded. Raises: as `Received.read`.
        """
        signer = signer_of(NO_KEYS if keys is None else keys, CHANNEL_STATUS.name)
        believed: defaultdict[str, list[Received]] = defaultdict(list)
        for record in records:
            name = record.channel_id
            if record.message.value() is None:
                for known in (self.heard, self.refused, believed):
                    known.pop(name, None)
            elif keys is None or is_believed(self.mode, name, signer(record.message), keys):
                before = believed[name][-1] if believed[name] else self.heard.get(name)
                if before is None or record.kid != before.kid:
                    self.refused.pop(name, None)
                believed[name].append(record)
            else:
                self._refuse(name, record)
        for name, of_channel in believed.items():
            self._keep(name, of_channel)

    def _keep(self, name: str, records: Sequence[Received]) -> None:
        """Keep the last of these heartbeats of a channel that can be read."""
        if name not in self.heard and len(self.heard) >= CHANNELS_MAX:
            return
        last = next((heard for record in reversed(records) if (heard := record.read()) is not None), None)
        if last is not None:
            self.heard[name] = last

    def _refuse(self, name: str, record: Received) -> None:
        before = self.refused.get(name)
        if record.read() is None or (before is None and len(self.refused) >= CHANNELS_MAX):
            return
        is_new = before is None or (record.at - before.at).total_seconds() > REFUSED_SECONDS
        if self.is_logged and is_new:
            log.warning("heartbeat_refused", channel=name, kid=record.kid)
        self.refused[name] = Refused(channel_id=name, at=record.at, kid=record.kid)


def refused_problem(refused: Refused | None, now: datetime) -> Problem | None:
    """The problem that a heartbeat was refused lately."""
    if refused is None or (now - refused.at).total_seconds() > REFUSED_SECONDS:
        return None
    name = refused.channel_id
    text = (
        f"a heartbeat in the name of {name} was refused, because it is not signed with its valid key: the last "
        f"genuine one counts. Either the store has another key (`tenten channel status {name}` there; "
        f"`tenten channel rotate-key {name}` makes a token for a new one), or somebody else can write to "
        "`channel-status` (`tenten topics acls`)"
    )
    return Problem(about=(name,), code=HEARTBEAT_REFUSED, text=text)


def unchecked_problem(name: str) -> Problem:
    """The problem that nobody can tell whether a channel has written its heartbeat."""
    text = (
        f"the heartbeat of {name} could not be checked, because headquarters' database does not answer: somebody else "
        "may have written it"
    )
    return Problem(about=(name,), code="heartbeat_unchecked", text=text)
