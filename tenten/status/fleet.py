"""The fleet: every channel as its last heartbeat reports it. Reads `channel-status` once, and at
headquarters the names of its channels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from confluent_kafka import Message

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.errors import TentenError
from tenten.runtime.settings import Settings
from tenten.schemas import messages
from tenten.schemas.messages import Heartbeat, heartbeat_from_avro
from tenten.schemas.topics import CHANNEL_STATUS
from tenten.status.databases import read_channel_names
from tenten.status.lateness import Ages, channel_problems
from tenten.status.reading import read_parts
from tenten.status.servers import kafka_problem
from tenten.status.side_by_side import ANSWER_SECONDS, ask_side_by_side

_READ_SECONDS: Final = ANSWER_SECONDS * 0.8
_ONLY_PARTITION: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The last heartbeat of a channel, and when the broker received it, by the broker's clock."""

    heartbeat: Heartbeat
    at: datetime

    def age_seconds(self, time: datetime | None, now: datetime) -> float | None:
        """How long ago a time of the heartbeat was, whatever the channel's clock shows; None if there is no time."""
        if time is None:
            return None
        return max(0.0, (self.heartbeat.sent_at - time + (now - self.at)).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOfFleet:
    """A channel as headquarters hears it."""

    channel_id: str
    heard_at: datetime | None
    """None: no heartbeat of this channel exists."""
    complete_at: datetime | None
    """When the channel was last known to have every customer that headquarters had sent."""
    customers: int | None
    oldest_unsent_seconds: int | None
    oldest_unsettled_seconds: int | None
    version: str | None
    problems: Sequence[messages.Problem]


def fleet(settings: Settings) -> list[ChannelOfFleet]:
    """Every channel of headquarters and of the settings, and every other one that has sent a heartbeat, by name.

    Ends within a few seconds. Raises: `TentenError` if Kafka does not answer or refuses.
    """
    calls: dict[str, Callable[[], Any]] = {"Kafka": partial(read_heartbeats, settings)}
    if settings.headquarters.database is not None:
        calls["headquarters"] = partial(read_channel_names, settings)
    results: dict[str, Any] = ask_side_by_side(calls)
    answer, registered = results["Kafka"], results.get("headquarters")
    if isinstance(answer, TentenError):
        raise answer
    if isinstance(answer, Exception):
        raise TentenError(kafka_problem(settings, answer))
    now = datetime.now(UTC)
    expected = {*settings.channels, *(registered if isinstance(registered, list) else ())}
    return [
        _channel(settings, name, answer.get(name), now, is_expected=name in expected)
        for name in sorted({*expected, *answer})
    ]


def _channel(settings: Settings, name: str, heard: Heard | None, now: datetime, *, is_expected: bool) -> ChannelOfFleet:
    ages = heard_ages(heard, now)
    found = channel_problems(settings.alarms, name, ages, is_expected=is_expected)
    problems = [messages.Problem(code=problem.code, text=problem.text) for problem in found]
    if heard is None:
        return ChannelOfFleet(
            channel_id=name,
            heard_at=None,
            complete_at=None,
            customers=None,
            oldest_unsent_seconds=None,
            oldest_unsettled_seconds=None,
            version=None,
            problems=problems,
        )
    return ChannelOfFleet(
        channel_id=name,
        heard_at=heard.at,
        complete_at=None if ages.complete is None else now - timedelta(seconds=ages.complete),
        customers=heard.heartbeat.customers,
        oldest_unsent_seconds=_whole(ages.unsent),
        oldest_unsettled_seconds=_whole(ages.unsettled),
        version=heard.heartbeat.release,
        problems=[*problems, *heard.heartbeat.problems],
    )


def heard_ages(heard: Heard | None, now: datetime) -> Ages:
    """The ages that a heartbeat reports."""
    if heard is None:
        return Ages()
    return Ages(
        heard=max(0.0, (now - heard.at).total_seconds()),
        unsent=heard.age_seconds(heard.heartbeat.oldest_unsent_at, now),
        unsettled=heard.age_seconds(heard.heartbeat.oldest_unsettled_at, now),
        complete=heard.age_seconds(heard.heartbeat.complete_at, now),
    )


def read_heartbeats(settings: Settings) -> Mapping[str, Heard]:
    """The last heartbeat by channel. Raises: `KafkaRefused`, `KafkaException`."""
    topic = settings.topic(CHANNEL_STATUS)
    newest: dict[bytes, Message] = {}
    for message in read_parts(settings, {(topic, _ONLY_PARTITION): (0, None)}, _READ_SECONDS):
        key, value = message.key(), message.value()
        if key is not None and value is not None:
            newest[key] = message
    return heard_of(newest, writer_schemas(settings))


def heard_of(newest: Mapping[bytes, Message], writers: WriterSchemas) -> dict[str, Heard]:
    """The heartbeats in these records, by channel; those that cannot be read are left out."""
    heard = [heard_in(message, writers) for message in newest.values() if message.value() is not None]
    return {found.heartbeat.channel_id: found for found in heard if found is not None}


def heard_in(message: Message, writers: WriterSchemas) -> Heard | None:
    """The heartbeat of a record; None if it cannot be read, as if it did not exist."""
    try:
        record = writers.decode(message.value() or b"", contract(CHANNEL_STATUS.value))
    except Unreadable:
        return None
    _, milliseconds = message.timestamp()
    return Heard(heartbeat=heartbeat_from_avro(record), at=datetime.fromtimestamp(milliseconds / 1000, UTC))


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
