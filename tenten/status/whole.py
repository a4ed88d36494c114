"""Put together what databases, Kafka and heartbeats tell, and name every problem once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from tenten.runtime.errors import TentenError
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ALL, CUSTOMERS, Role, Topic
from tenten.status.databases import ChannelRead, HeadquartersRead, read_channel, read_headquarters
from tenten.status.fleet import heard_ages, reported_problems
from tenten.status.heartbeats import Heard, Heartbeats, refused_problem, unchecked_problem
from tenten.status.kafka_state import KafkaState, customers_lag, read_kafka
from tenten.status.lateness import Ages, blocked_statement, channel_problems, missing_worker, unknown_channel
from tenten.status.servers import database_problem, kafka_problem
from tenten.status.side_by_side import NoAnswer, ask_side_by_side
from tenten.status.values import ChannelStatus, HeadquartersStatus, Problem, TopicStatus, WholeStatus
from tenten.workers import AT_HEADQUARTERS, HEADQUARTERS, TRANSACTIONS

KAFKA: Final = "Kafka"
AT: Final = "headquarters"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What the servers have answered, or why not."""

    settings: Settings
    now: datetime
    kafka: KafkaState
    heartbeats: Heartbeats | None
    """None: they could not be read."""
    headquarters: HeadquartersRead | Exception | None
    """None: it is elsewhere."""
    channels: Mapping[str, ChannelRead | Exception | None]
    """None: this machine's settings do not have it, its database is elsewhere."""


def whole_status(settings: Settings) -> WholeStatus:
    """Topics, headquarters, and the channels of the settings and of headquarters. Ends within five seconds.

    Where no database of headquarters is configured, headquarters is elsewhere: only the channels are looked at.
    """
    at_headquarters = settings.headquarters.database is not None
    topics = ALL if at_headquarters else _topics_of_channels()
    state = KafkaState()
    calls: dict[str, Callable[[], Any]] = {
        f"channel {name}": partial(read_channel, settings, name) for name in settings.channels
    }
    calls[KAFKA] = partial(read_kafka, settings, topics, at_headquarters=at_headquarters, state=state)
    if at_headquarters:
        calls[AT] = partial(read_headquarters, settings)
    results: dict[str, Any] = ask_side_by_side(calls)
    read = results.get(AT)
    heartbeats = _heartbeats(settings, state, read)
    names = dict.fromkeys([*settings.channels, *_running_or_known(settings, heartbeats, read)])
    answers = _Answers(
        settings=settings,
        now=datetime.now(UTC),
        kafka=state,
        heartbeats=heartbeats,
        headquarters=read,
        channels={name: results.get(f"channel {name}") for name in names},
    )
    problems = [
        *_kafka_problems(settings, state, results[KAFKA]),
        *_headquarters_problems(answers),
        *(problem for name in names for problem in _channel_problems(answers, name)),
    ]
    problems = _each_once(problems)
    first = _first_by_part(problems)
    return WholeStatus(
        topics=[_topic_status(settings, state, topic) for topic in topics],
        headquarters=_headquarters_status(answers, first.get(AT)),
        channels={name: _channel_status(answers, name, first.get(name)) for name in names},
        problems=problems,
    )


def _heartbeats(settings: Settings, state: KafkaState, read: HeadquartersRead | Exception | None) -> Heartbeats | None:
    """The heartbeats, checked with the keys of headquarters' database if it answers."""
    if state.heartbeats is None:
        return None
    heartbeats = Heartbeats(mode=settings.authentication)
    heartbeats.take(state.heartbeats, read.keys if isinstance(read, HeadquartersRead) else None)
    return heartbeats


def _running_or_known(
    settings: Settings, heartbeats: Heartbeats | None, read: HeadquartersRead | Exception | None
) -> Iterator[str]:
    """The channels of headquarters, and those that it hears from at present without having them."""
    if isinstance(read, HeadquartersRead):
        yield from read.channels
        for name, heard in ({} if heartbeats is None else heartbeats.heard).items():
            if unknown_channel(settings.alarms, name, heard_ages(heard, datetime.now(UTC))) is not None:
                yield name


def channel_status(settings: Settings, name: str) -> ChannelStatus:
    """The status of a channel from its database; its lag is None while no broker answers.

    Raises: `SettingsError`, `DatabaseRefused`; `TentenError` if the database does not answer.
    """
    address = settings.channel(name).database
    state = KafkaState()
    results: dict[str, Any] = ask_side_by_side(
        {
            "database": partial(read_channel, settings, name),
            KAFKA: partial(read_kafka, settings, [CUSTOMERS], at_headquarters=False, state=state),
        }
    )
    read: ChannelRead | Exception = results["database"]
    if isinstance(read, TentenError):
        raise read
    if isinstance(read, Exception):
        raise TentenError(database_problem(address, read)) from read
    if isinstance(results[KAFKA], Exception):
        # It must be one that can be explained.
        kafka_problem(settings, results[KAFKA])
    text = next(iter(read.problems.values()), None)
    return replace(read.status, lag=customers_lag(settings, state, read.positions), problem=text)


def _topics_of_channels() -> list[Topic]:
    """The topics that channels read and write: a store's user may not see others."""
    return [topic for topic in ALL if Role.CHANNEL in topic.readers | topic.writers]


def _kafka_problems(settings: Settings, state: KafkaState, result: object) -> Iterator[Problem]:
    if isinstance(result, NoAnswer) and state.answers:
        text = f"Kafka at {settings.kafka.get('bootstrap.servers')} answers slowly: a part of the status is missing"
        yield Problem(about=(KAFKA,), code="slow", text=text)
    elif isinstance(result, Exception):
        yield Problem(about=(KAFKA,), code="no_answer", text=kafka_problem(settings, result))
    failed = {name: error for name, error in state.topics.items() if isinstance(error, Exception)}
    by_kind: dict[str, list[str]] = {}
    for name, error in failed.items():
        by_kind.setdefault(kafka_problem(settings, error).partition(" (")[0], []).append(name)
    for text, names in by_kind.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Problem(about=(KAFKA,), code="topic", text=f"{text} ({names[0]}{more})")


def _headquarters_problems(answers: _Answers) -> Iterator[Problem]:
    if answers.headquarters is not None:
        yield from headquarters_problems(answers.settings, answers.kafka.members, answers.headquarters)


def headquarters_problems(
    settings: Settings, members: Mapping[str, int], read: HeadquartersRead | Exception
) -> Iterator[Problem]:
    """What is wrong at headquarters. `members`: its running processes by worker; `read`: its database."""
    limits = settings.alarms
    for worker in AT_HEADQUARTERS:
        if members.get(worker.name) == 0:
            yield missing_worker(worker.name, " ".join(worker.command))
    if isinstance(read, Exception):
        text = database_problem(settings.headquarters_database(), read)
        yield Problem(about=(AT,), code="no_answer", text=text)
        return
    if read.transactions is not None and read.transactions.problem is not None:
        yield Problem(about=(AT,), code="waiting_too_long", text=read.transactions.problem)
    held = read.status.held
    if held is not None and held.problem is not None and (held.oldest_seconds or 0) > limits.held_seconds_max:
        yield Problem(about=(AT,), code="held_too_long", text=held.problem)
    if read.blocked is not None and read.blocked.seconds > limits.blocked_seconds_max:
        yield blocked_statement(read.blocked.channel_id, read.blocked.business_date.isoformat(), read.blocked.seconds)


def _channel_problems(answers: _Answers, name: str) -> Iterator[Problem]:
    settings, read, heard = answers.settings, answers.channels[name], _heard(answers, name)
    ages = _ages(answers, name)
    if isinstance(read, Exception) and not _is_fresh(answers, heard):
        # A channel that is heard from has its database elsewhere.
        text = database_problem(settings.channel(name).database, read)
        yield Problem(about=(name,), code="no_answer", text=text)
    suspended = None
    if isinstance(answers.headquarters, HeadquartersRead):
        suspended = answers.headquarters.suspended.get(name)
        unknown = unknown_channel(settings.alarms, name, ages)
        if unknown is not None and name not in answers.headquarters.channels:
            yield unknown
    is_expected = answers.heartbeats is not None
    yield from channel_problems(settings.alarms, name, ages, is_expected=is_expected, suspended=suspended)
    refused = None if answers.heartbeats is None else answers.heartbeats.refused.get(name)
    of_refused = refused_problem(refused, answers.now)
    if of_refused is not None:
        yield of_refused
    if heard is not None and isinstance(answers.headquarters, Exception) and settings.authentication != "off":
        yield unchecked_problem(name)
    if isinstance(read, ChannelRead):
        for code, text in read.problems.items():
            yield Problem(about=(name,), code=code, text=text)
    elif heard is not None:
        for problem in reported_problems(heard, is_suspended=suspended is not None):
            yield Problem(about=(name,), code=problem.code, text=problem.text)


def _each_once(problems: list[Problem]) -> list[Problem]:
    """The problems with different sentences; one that several parts have is about all of them."""
    by_text: dict[str, Problem] = {}
    for problem in problems:
        known = by_text.get(problem.text)
        about = problem.about if known is None else (*known.about, *problem.about)
        by_text[problem.text] = replace(problem, about=tuple(dict.fromkeys(about)))
    return list(by_text.values())


def _heard(answers: _Answers, name: str) -> Heard | None:
    return None if answers.heartbeats is None else answers.heartbeats.heard.get(name)


def _is_fresh(answers: _Answers, heard: Heard | None) -> bool:
    age = heard_ages(heard, answers.now).heard
    return age is not None and age <= answers.settings.alarms.silent_seconds_max


def _ages(answers: _Answers, name: str) -> Ages:
    """The ages from the channel's database; from its heartbeat if the database is elsewhere."""
    read, ages = answers.channels[name], heard_ages(_heard(answers, name), answers.now)
    if not isinstance(read, ChannelRead):
        return ages
    return Ages(
        heard=ages.heard,
        unsent=_since(read.status.oldest_unsent_at, answers.now),
        unsettled=_since(read.status.oldest_unsettled_at, answers.now),
        complete=_since(read.status.confirmed_at, answers.now),
    )


def _since(time: datetime | None, now: datetime) -> float | None:
    return None if time is None else max(0.0, (now - time).total_seconds())


def _topic_status(settings: Settings, state: KafkaState, topic: Topic) -> TopicStatus:
    name = settings.topic(topic)
    found, info = state.topics.get(name), state.topic(name)
    if info is None:
        text = kafka_problem(settings, found) if isinstance(found, Exception) else None
        return TopicStatus(topic=name, problem=text)
    parts = [(name, partition) for partition in range(info.partitions)]
    offsets = sum(state.ends[part] - state.starts[part] for part in parts)
    return TopicStatus(topic=name, partitions=info.partitions, offsets=offsets)


def _headquarters_status(answers: _Answers, problem: str | None) -> HeadquartersStatus:
    if answers.headquarters is None:
        return HeadquartersStatus()
    read, lags = answers.headquarters, answers.kafka.lags
    read = read if isinstance(read, HeadquartersRead) else HeadquartersRead()
    transactions = read.transactions
    return replace(
        read.status,
        lag=lags.get(HEADQUARTERS.name),
        workers={worker.name: answers.kafka.members.get(worker.name) for worker in AT_HEADQUARTERS},
        transactions=None if transactions is None else replace(transactions, lag=lags.get(TRANSACTIONS.name)),
        problem=problem,
    )


def _channel_status(answers: _Answers, name: str, problem: str | None) -> ChannelStatus:
    read, heard = answers.channels[name], _heard(answers, name)
    heard_at = None if heard is None else heard.at
    if isinstance(read, ChannelRead):
        lag = customers_lag(answers.settings, answers.kafka, read.positions)
        return replace(read.status, lag=lag, heard_at=heard_at, problem=problem)
    if heard is None:
        return ChannelStatus(problem=problem)
    ages, heartbeat = heard_ages(heard, answers.now), heard.heartbeat
    unsent_at, unsettled_at, confirmed_at = (
        None if age is None else answers.now - timedelta(seconds=age)
        for age in (ages.unsent, ages.unsettled, ages.complete)
    )
    return ChannelStatus(
        customers=heartbeat.customers,
        unsent=heartbeat.unsent,
        unsettled=heartbeat.unsettled,
        oldest_unsent_at=unsent_at,
        oldest_unsettled_at=unsettled_at,
        confirmed_at=confirmed_at,
        heard_at=heard_at,
        problem=problem,
    )


def _first_by_part(problems: list[Problem]) -> dict[str, str]:
    """The text of the first problem of each part that has one."""
    return {part: problem.text for problem in reversed(problems) for part in problem.about}
