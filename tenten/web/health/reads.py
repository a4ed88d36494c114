"""What `/metrics` reads when it is asked: in the database of the process, and at the broker."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, select, text

from tenten.consumers.headquarters.known_channels import ChannelRegistry, KnownChannels
from tenten.headquarters_views.held import held_status
from tenten.headquarters_views.transactions import oldest_blocked, transactions_status
from tenten.kafka.offsets import end_offsets
from tenten.kafka.records import record_position
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.number_sequence import number_format
from tenten.runtime.counting import Labels
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import positions
from tenten.schemas.tables.headquarters import number_sequences
from tenten.schemas.topics import CHANNEL_STATUS, CUSTOMERS
from tenten.sql import channel_state
from tenten.sql.engine import consistent_view
from tenten.status.heartbeats import Heard, Heartbeats, Received
from tenten.status.lag import worker_lags
from tenten.status.reading import read_parts
from tenten.workers import HEADQUARTERS, TRANSACTIONS, Worker

_DATABASE_MS: Final = 2_000
"""How long PostgreSQL may take for a statement."""

_HEARTBEATS_SECONDS: Final = 5.0
_ONLY_PARTITION: Final = 0


class Sample(NamedTuple):
    """A value of a metric."""

    name: str
    value: float
    labels: Labels = ()


Read = Callable[[], Sequence[Sample]]
"""Reads samples. May block, and raise any error of the server."""


def headquarters_database(engine: Engine, settings: Settings, worker: Worker) -> Read:
    """Reads headquarters' database, for this worker."""

    def read() -> list[Sample]:
        with consistent_view(engine) as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = {_DATABASE_MS}"))
            if worker is HEADQUARTERS:
                return [*_numbers(connection), *_held(connection)]
            assert worker is TRANSACTIONS
            return list(_transactions(connection, settings.headquarters.waiting_seconds_max))

    return read


def _numbers(connection: Connection) -> Iterator[Sample]:
    for row in connection.execute(select(number_sequences)):
        left = number_format(row.format).number_max - row.next + 1
        yield Sample("tenten_account_numbers_left", max(0, left), (row.legal_entity,))


def _held(connection: Connection) -> Iterator[Sample]:
    held = held_status(connection)
    yield Sample("tenten_held_oldest_seconds", held.oldest_seconds or 0)
    codes = {cause.code for cause in held.causes}
    for code in sorted(codes):
        events = sum(cause.events for cause in held.causes if cause.code == code)
        yield Sample("tenten_held_events", events, (code,))


def _transactions(connection: Connection, waiting_seconds_max: int) -> Iterator[Sample]:
    status, blocked = transactions_status(connection, waiting_seconds_max), oldest_blocked(connection)
    yield Sample("tenten_statements_open", status.open_statements)
    yield Sample("tenten_statement_oldest_blocked_seconds", 0 if blocked is None else blocked.seconds)
    yield Sample("tenten_transactions_open", status.waiting, ("waiting",))
    yield Sample("tenten_transactions_open", status.blocked, ("blocked",))
    yield Sample("tenten_transactions_open", status.rejected, ("rejected",))
    yield Sample("tenten_transactions_oldest_waiting_seconds", status.oldest_waiting_seconds or 0)


def channel_database(engine: Engine, settings: Settings, channel: str) -> Read:
    """Reads the database of a channel."""

    def read() -> list[Sample]:
        with consistent_view(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL statement_timeout = {_DATABASE_MS}"))
            now = datetime.now(UTC)
            unsettled = channel_state.oldest_unsettled(connection)
            complete_at = channel_state.complete_at(connection, settings)
            samples = [
                Sample("tenten_outbox_unsent", channel_state.unsent_count(connection)),
                Sample("tenten_outbox_oldest_unsent_seconds", _age(channel_state.oldest_unsent_at(connection), now)),
                Sample("tenten_oldest_unsettled_seconds", _age(unsettled.created_at if unsettled else None, now)),
            ]
            if complete_at is not None:
                samples.append(_complete(channel, complete_at))
            return samples

    return read


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _complete(channel: str, at: datetime) -> Sample:
    return Sample("tenten_channel_complete_timestamp_seconds", at.timestamp(), (channel,))


def worker_lag(settings: Settings, worker: Worker) -> Read:
    """Reads the lag of a worker of headquarters from the committed offsets of its group."""
    return lambda: [_lag(lag.group, lag.topic, lag.partition, lag.lag) for lag in worker_lags(settings, worker)]


def channel_lag(engine: Engine, settings: Settings, channel: str) -> Read:
    """Reads the lag of a channel: where its database says that it has read to, against the ends of the topics."""

    def read() -> list[Sample]:
        query = select(positions.c.topic, positions.c.partition, positions.c.next_offset)
        with consistent_view(engine) as connection:
            read_to = {(row.topic, row.partition): row.next_offset for row in connection.execute(query)}
        # Asked also where nothing was read yet: the answer says whether the broker is there.
        ends = end_offsets(settings, list(read_to) or [(settings.topic(CUSTOMERS), 0)])
        group = settings.channel_group(channel)
        return [_lag(group, *part, max(0, ends[part] - offset)) for part, offset in sorted(read_to.items())]

    return read


def _lag(group: str, topic: str, partition: int, lag: int) -> Sample:
    return Sample("kafka_consumergroup_lag", lag, (group, topic, str(partition)))


class HeartbeatReads:
    """Reads the heartbeats of all channels: the first time all of them, then those that have come since."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._registry = ChannelRegistry(engine)
        self._next_offset = 0
        self._heartbeats = Heartbeats(mode=settings.authentication, is_logged=True)

    def read(self) -> list[Sample]:
        """The samples of every channel of headquarters' settings. Raises: errors of the database, whose keys decide
        which heartbeats count, and of Kafka.
        """
        settings = self._settings
        part = (settings.topic(CHANNEL_STATUS), _ONLY_PARTITION)
        messages = list(read_parts(settings, {part: (self._next_offset, None)}, _HEARTBEATS_SECONDS))
        self._registry.refresh()
        writers = writer_schemas(settings)
        self._heartbeats.take([Received(message, writers) for message in messages], self._registry.known.keys)
        if messages:
            self._next_offset = record_position(messages[-1])[1] + 1
        return list(_channels(self._registry.known, self._heartbeats.heard))


def _channels(known: KnownChannels, heard: Mapping[str, Heard]) -> Iterator[Sample]:
    now = datetime.now(UTC)
    for channel in sorted(known.legal_entity_by_channel):
        yield Sample("tenten_channel_suspended", channel in known.keys.suspended, (channel,))
        last = heard.get(channel)
        if last is None:
            continue
        yield Sample("tenten_channel_heard_timestamp_seconds", last.at.timestamp(), (channel,))
        age = last.age_seconds(last.heartbeat.complete_at, now)
        if age is not None:
            yield Sample("tenten_channel_complete_timestamp_seconds", now.timestamp() - age, (channel,))
