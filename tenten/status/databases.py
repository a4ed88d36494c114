"""What the databases of headquarters and of channels tell."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Select, func, select, text
from sqlalchemy.exc import DBAPIError

from tenten.consumers.channel.distribution.surplus import surplus_problem
from tenten.consumers.headquarters.known_keys import NO_KEYS, KnownKeys, read_known_keys
from tenten.headquarters_views.held import held_status
from tenten.headquarters_views.transactions import (
    OldestBlocked,
    TransactionsStatus,
    oldest_blocked,
    transactions_status,
)
from tenten.runtime.error_codes import error_code
from tenten.runtime.settings import Settings
from tenten.schemas.tables import channel, headquarters
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.channel_settings import KEY_NOT_ACCEPTED, SUSPENDED, read_acceptance, suspended_text
from tenten.sql.channel_state import (
    DUPLICATE_NUMBER,
    complete_at,
    duplicate_numbers_count,
    duplicate_numbers_text,
    oldest_unsent_at,
    oldest_unsettled,
)
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import Which, check_version
from tenten.status.values import ChannelStatus, HeadquartersStatus, NumberSequenceStatus, VerificationStatus

_REJECTED: Final = "rejected"
_COUNT_MILLISECONDS: Final = 500
_QUERY_CANCELED: Final = "57014"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadquartersRead:
    """The status from headquarters' database, its channels, and its oldest blocked statement."""

    status: HeadquartersStatus = field(default_factory=HeadquartersStatus)
    channels: Sequence[str] = ()
    suspended: Mapping[str, str] = field(default_factory=dict)
    """The reason, by channel that is suspended."""
    keys: KnownKeys = NO_KEYS
    """Those of channels; read for `read_headquarters` only."""
    transactions: TransactionsStatus | None = None
    blocked: OldestBlocked | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAtHeadquarters:
    """The channels of headquarters' settings, and their keys."""

    channels: Sequence[str]
    suspended: Mapping[str, str]
    """The reason, by channel that is suspended."""
    keys: KnownKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRead:
    """The status from a channel's database, and its positions in `customers` by topic id and partition."""

    status: ChannelStatus
    positions: Mapping[tuple[str, int], int]
    problems: Mapping[str, str]
    """Sentences by code."""


def read_headquarters(settings: Settings) -> HeadquartersRead:
    """The status of headquarters. Raises: `SettingsError`, `DatabaseRefused`, `DBAPIError`."""
    customers, log = headquarters.customers, headquarters.synchronization_log
    with _opened(settings.headquarters_database(), "headquarters") as connection:
        read = read_at_headquarters(connection, settings)
        status = replace(
            read.status,
            customers=_count_in_time(connection, select(func.count()).where(customers.c.erased_at.is_(None))),
            events=_count_in_time(connection, select(func.count()).select_from(log)),
            rejected=_count_in_time(connection, select(func.count()).where(log.c.outcome == _REJECTED)),
        )
        keys = read_known_keys(connection, NO_KEYS)
    return replace(read, status=status, keys=keys)


def read_at_headquarters(connection: Connection, settings: Settings) -> HeadquartersRead:
    """The status of headquarters without the counts that read whole tables, in a transaction of the caller's."""
    log = headquarters.synchronization_log
    sequences = {
        row.legal_entity: NumberSequenceStatus(
            format=row.format, next=row.next, left=10 ** row.format.count("#") - row.next
        )
        for row in connection.execute(select(headquarters.number_sequences))
    }
    return HeadquartersRead(
        status=HeadquartersStatus(
            conflicts=_count(connection, select(func.count()).where(log.c.conflicts > 0)),
            number_sequences=sequences,
            held=held_status(connection),
            verification=_last_verification(connection),
        ),
        channels=_channels(connection),
        suspended=_suspended(connection),
        transactions=transactions_status(connection, settings.headquarters.waiting_seconds_max),
        blocked=oldest_blocked(connection),
    )


def read_channel_names(settings: Settings) -> list[str]:
    """The channels of headquarters' settings. Raises: `SettingsError`, `DatabaseRefused`, `DBAPIError`."""
    with _opened(settings.headquarters_database(), "headquarters") as connection:
        return _channels(connection)


def read_known_channels(settings: Settings) -> KnownAtHeadquarters:
    """The channels of headquarters' settings, with their keys. Raises: as `read_channel_names`."""
    with _opened(settings.headquarters_database(), "headquarters") as connection:
        keys = read_known_keys(connection, NO_KEYS)
        return KnownAtHeadquarters(channels=_channels(connection), suspended=_suspended(connection), keys=keys)


def _channels(connection: Connection) -> list[str]:
    return list(connection.scalars(select(headquarters.channels.c.channel_id).order_by("channel_id")))


def _suspended(connection: Connection) -> dict[str, str]:
    columns = headquarters.channels.c
    query = select(columns.channel_id, columns.suspended_reason).where(columns.suspended_at.is_not(None))
    return {row.channel_id: row.suspended_reason or "" for row in connection.execute(query)}


def _last_verification(connection: Connection) -> VerificationStatus | None:
    """The newest comparison of database and topic."""
    query = select(headquarters.verifications).order_by(headquarters.verifications.c.finished_at.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else VerificationStatus(**row)


def read_channel(settings: Settings, name: str) -> ChannelRead:
    """The status of a channel. Raises: `SettingsError`, `DatabaseRefused`, `DBAPIError`."""
    customers, outbox, positions = channel.customers, channel.outbox, channel.positions
    topic = settings.topic(CUSTOMERS)
    unsettled = select(func.count()).where(outbox.c.settled_at.is_(None))
    is_queued = outbox.c.sequence.in_(select(channel.outbox_queue.c.sequence))
    with _opened(settings.channel(name).database, "channel") as connection:
        first_unsettled = oldest_unsettled(connection)
        status = ChannelStatus(
            customers=_count(connection, select(func.count()).select_from(customers)),
            pending=_count(connection, select(func.count()).where(customers.c.account_number.is_(None))),
            unsettled=_count(connection, unsettled),
            unsent=_count(connection, unsettled.where(is_queued, outbox.c.outcome.is_(None))),
            rejected=_count(connection, unsettled.where(outbox.c.outcome == _REJECTED)),
            oldest_unsent_at=oldest_unsent_at(connection),
            oldest_unsettled_at=None if first_unsettled is None else first_unsettled.created_at,
            confirmed_at=complete_at(connection, settings),
        )
        problems = _problems(connection, name)
        query = select(positions.c.topic_id, positions.c.partition, positions.c.next_offset)
        rows = connection.execute(query.where(positions.c.topic == topic)).all()
    next_offsets = {(row.topic_id, row.partition): row.next_offset for row in rows}
    return ChannelRead(status=status, positions=next_offsets, problems=problems)


def _problems(connection: Connection, name: str) -> Mapping[str, str]:
    """What is wrong in a channel's database."""
    found = {}
    duplicates = duplicate_numbers_count(connection)
    if duplicates:
        found[DUPLICATE_NUMBER] = duplicate_numbers_text(name, duplicates)
    surplus = surplus_problem(connection, name)
    if surplus is not None:
        found["surplus_kept"] = surplus
    acceptance = read_acceptance(connection, name)
    key = acceptance.key_problem(name, datetime.now(UTC))
    if acceptance.suspended is not None:
        found[SUSPENDED] = suspended_text(name, acceptance.suspended)
    elif key is not None:
        found[KEY_NOT_ACCEPTED] = key
    return found


@contextmanager
def _opened(address: str, which: Which) -> Generator[Connection]:
    """A read-only transaction. Raises: `DatabaseRefused`."""
    engine = open_database(address)
    try:
        check_version(engine, which)
        with consistent_view(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def _count(connection: Connection, query: Select[int]) -> int:
    return connection.execute(query).scalar_one()


def _count_in_time(connection: Connection, query: Select[int]) -> int | None:
    """The count in PostgreSQL; None if it takes too long."""
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL statement_timeout = {_COUNT_MILLISECONDS}"))
            return _count(connection, query)
    except DBAPIError as error:
        if error_code(error) != _QUERY_CANCELED:
            raise
        return None
