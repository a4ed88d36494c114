"""The fleet: every channel as its last heartbeat reports it. Reads `channel-status` once, and at headquarters the names
and keys of its channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.errors import TentenError
from tenten.runtime.settings import Settings
from tenten.schemas import messages
from tenten.schemas.topics import CHANNEL_STATUS
from tenten.sql.channel_settings import KEY_NOT_ACCEPTED
from tenten.status.databases import KnownAtHeadquarters, read_known_channels
from tenten.status.heartbeats import Heard, Heartbeats, Received, refused_problem, unchecked_problem
from tenten.status.lateness import Ages, channel_problems, unknown_channel
from tenten.status.reading import read_parts
from tenten.status.servers import kafka_problem
from tenten.status.side_by_side import ANSWER_SECONDS, ask_side_by_side

_READ_SECONDS: Final = ANSWER_SECONDS * 0.8
_ONLY_PARTITION: Final = 0


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
    loading: messages.Loading | None
    """How far a load of all customers is; when it began is by the broker's clock."""
    problems: Sequence[messages.Problem]


def fleet(settings: Settings) -> list[ChannelOfFleet]:
    """Every channel of headquarters and of the settings, and every other one that has sent a heartbeat, by name.

    Ends within a few seconds. Raises: `TentenError` if Kafka does not answer or refuses.
    """
    answer = hear(settings)
    now = datetime.now(UTC)
    expected = {*settings.channels, *(answer.known.channels if answer.known is not None else ())}
    return [
        _channel(settings, name, answer, now, is_expected=name in expected)
        for name in sorted({*expected, *answer.heartbeats.heard})
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """What was heard, and what headquarters' database knows of the channels."""

    heartbeats: Heartbeats
    known: KnownAtHeadquarters | None
    """None without an answer of headquarters' database, or where none is configured."""
    is_unchecked: bool
    """Headquarters' database did not answer, so nobody can tell who has written the heartbeats."""


def hear(settings: Settings) -> Hearing:
    """The last heartbeat of each channel, checked where a database of headquarters is configured.

    Ends within a few seconds. Raises: `TentenError` if Kafka does not answer or refuses.
    """
    calls: dict[str, Callable[[], Any]] = {"Kafka": partial(receive_heartbeats, settings)}
    is_at_headquarters = settings.headquarters.database is not None
    if is_at_headquarters:
        calls["headquarters"] = partial(read_known_channels, settings)
    results: dict[str, Any] = ask_side_by_side(calls)
    answer, known = results["Kafka"], results.get("headquarters")
    if isinstance(answer, TentenError):
        raise answer
    if isinstance(answer, Exception):
        raise TentenError(kafka_problem(settings, answer))
    known = known if isinstance(known, KnownAtHeadquarters) else None
    heartbeats = Heartbeats(mode=settings.authentication)
    heartbeats.take(answer, None if known is None else known.keys)
    return Hearing(
        heartbeats=heartbeats,
        known=known,
        is_unchecked=is_at_headquarters and known is None and settings.authentication != "off",
    )


def _channel(settings: Settings, name: str, answer: Hearing, now: datetime, *, is_expected: bool) -> ChannelOfFleet:
    heard = answer.heartbeats.heard.get(name)
    ages = heard_ages(heard, now)
    known = answer.known
    suspended = None if known is None else known.suspended.get(name)
    found = channel_problems(settings.alarms, name, ages, is_expected=is_expected, suspended=suspended)
    if known is not None and name not in known.channels:
        found += filter(None, [unknown_channel(settings.alarms, name, ages)])
    refused = refused_problem(answer.heartbeats.refused.get(name), now)
    if refused is not None:
        found.append(refused)
    if answer.is_unchecked and heard is not None:
        found.append(unchecked_problem(name))
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
            loading=None,
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
        loading=heard.loading,
        problems=[*problems, *reported_problems(heard, is_suspended=suspended is not None)],
    )


def reported_problems(heard: Heard, *, is_suspended: bool) -> list[messages.Problem]:
    """The problems that a channel reports of itself; the key of a suspended one is not accepted, which is no further
    problem.
    """
    problems = heard.heartbeat.problems
    return [problem for problem in problems if not (is_suspended and problem.code == KEY_NOT_ACCEPTED)]


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


def receive_heartbeats(settings: Settings) -> list[Received]:
    """All records of `channel-status`. Raises: `KafkaRefused`, `KafkaException`."""
    part, writers = (settings.topic(CHANNEL_STATUS), _ONLY_PARTITION), writer_schemas(settings)
    return [Received(message, writers) for message in read_parts(settings, {part: (0, None)}, _READ_SECONDS)]


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
