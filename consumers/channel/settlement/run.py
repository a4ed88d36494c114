"""Settlement: closes what a channel is waiting for.

Input: the channel's own partition of `channel-replies`, from the position in the channel's database.
Output: the outbox rows that headquarters has answered, account numbers, what became of orders, sales and ends of day,
and the position, in one SQL transaction.
Promise: every answer is taken in once, in order; what an answer makes visible is visible when its transaction commits.

    it dies                          then
    before the commit                nothing happened; the same replies are read again
    after the commit                 reading goes on behind them

Answers to events that this database does not know (it was restored from a backup) change nothing. Replies to other
channels in the same partition are passed over by their key. A reply to this channel that cannot be read stops it, as
nothing may be skipped; it is tried again every few seconds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from time import monotonic
from typing import Final

from sqlalchemy import Connection, Engine, text
from structlog import get_logger

from tenten.avro.batches import decode_batch
from tenten.avro.small_batch import FEW_RECORDS, decode_few
from tenten.avro.wire import WriterSchemas, contract
from tenten.consumers.channel.distribution.apply import ChannelView, tables_of
from tenten.consumers.channel.overlay import erase, show_again
from tenten.consumers.channel.positions import (
    TopicRead,
    begin,
    guard_topic,
    move,
    read_another,
    read_positions,
    replace,
)
from tenten.consumers.channel.settlement.transactions import settle_sales
from tenten.consumers.channel.topic_watch import Watch
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import POLL_SECONDS, AssignedReader, OffsetUnavailable, Records
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Outcome, Reply, reasons_as_json, reply_from_avro
from tenten.schemas.topics import CHANNEL_REPLIES, RECORD_BYTES_MAX
from tenten.sql.engine import open_database
from tenten.sql.migrations import check_version
from tenten.sql.notifications import SETTLED_CHANNEL

log = get_logger(__name__)

RETRY_SECONDS: Final = 10.0
"""How often a reply that cannot be read is tried again."""

NOTE_SECONDS: Final = 1.0
"""How often the position is noted where nothing but that has to be written."""

_POSTGRESQL_ROWS: Final = 2_000


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Settle until `stop` is set.

    Raises: `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`: what waiting cannot mend, each with what
    to do.
    """
    view = ChannelView.of(settings, channel_name, writer_schemas(settings))
    engine = open_database(settings.channel(channel_name).database)
    retry = Retry("settlement", channel_name, stop)
    begin_anew = False
    try:
        while not stop.is_set():
            with retry.retrying():
                check_version(engine, "channel")
                place = _where(settings, engine, channel_name, begin_anew)
                begin_anew = False
                try:
                    _follow(settings, engine, view, place, retry=retry, stop=stop)
                except OffsetUnavailable:
                    # Older replies are gone; whoever still waits for one of them sends again and is answered again.
                    log.warning("replies_gone", channel=channel_name, next_offset=place.next_offset)
                    begin_anew = True
    finally:
        engine.dispose()


@dataclass(kw_only=True)
class _Place:
    """Where the channel stands in its partition."""

    topic: TopicRead
    partition: int
    next_offset: int
    """As the database has it."""
    read_to: int
    end: int | None = None
    """Where the partition ended, when it was read to its end."""


def _where(settings: Settings, engine: Engine, channel_name: str, begin_anew: bool) -> _Place:
    """Where the channel stands: at the beginning of a topic that is new to it, or has lost the place where it stood."""
    name = settings.topic(CHANNEL_REPLIES)
    info = topic_ids(settings, [name])[name]
    now = datetime.now(UTC)
    with engine.begin() as connection:
        topic = guard_topic(connection, name, info)
        partition = partition_of(channel_name, topic.partitions)
        positions = read_positions(connection, topic)
        if begin_anew or (partition not in positions and read_another(connection, topic)):
            replace(connection, topic, {partition: 0}, now)
        elif partition not in positions:
            begin(connection, topic, [partition], now)
        else:
            at = positions[partition].next_offset
            return _Place(topic=topic, partition=partition, next_offset=at, read_to=at)
    return _Place(topic=topic, partition=partition, next_offset=0, read_to=0)


def _follow(settings: Settings, engine: Engine, view: ChannelView, place: _Place, *, retry: Retry, stop: Event) -> None:
    """Settle what comes, until `stop` is set or the topic must be looked at again."""
    slices = Slices(engine.dialect.name, _POSTGRESQL_ROWS)
    group = settings.group(f"channel.{view.channel_id}")
    noted_at, stopped_at = 0.0, -1
    with (
        AssignedReader(settings, place.topic.name, group, {place.partition: place.next_offset}) as reader,
        Watch(settings, place.topic) as watch,
    ):
        while not stop.is_set() and not watch.topic_changed():
            records = reader.read(BatchLimits(), POLL_SECONDS)
            unreadable_at = _take(engine, view, place, records, slices)
            place.end = records.ends.get(place.partition, place.end)
            if unreadable_at is not None:
                if unreadable_at != stopped_at:
                    log.error(
                        "reply_unreadable", channel=view.channel_id, partition=place.partition, offset=unreadable_at
                    )
                stopped_at = unreadable_at
                stop.wait(RETRY_SECONDS)
                reader.assign({place.partition: unreadable_at})
            elif monotonic() - noted_at >= NOTE_SECONDS and _behind(place):
                _note(engine, place)
                noted_at = monotonic()
                reader.commit_for_monitoring({place.partition: place.next_offset})
                retry.recovered()


def _take(engine: Engine, view: ChannelView, place: _Place, records: Records, slices: Slices) -> int | None:
    """Settle what these records answer of this channel. The offset of the first reply that cannot be read, if any."""
    mine = [row for row, key in enumerate(records.keys) if key == view.channel_id.encode()]
    replies, unreadable_at = _decode(records.rows(mine), view.writers)
    for first, end in slices.cut(len(replies)):
        began = monotonic()
        settled = [reply for _, reply in replies[first:end]]
        next_offset = replies[end - 1][0] + 1
        with engine.begin() as connection, slices.timed(end - first):
            now = datetime.now(UTC)
            settle(connection, view, settled, now)
            move(connection, place.topic, {place.partition: (place.next_offset, next_offset)}, (), now)
            failpoint("settlement.before_commit")
        failpoint("settlement.after_commit")
        place.next_offset = place.read_to = next_offset
        log.info(
            "replies_settled",
            channel=view.channel_id,
            partition=place.partition,
            replies=len(settled),
            next_offset=next_offset,
            seconds=round(monotonic() - began, 3),
        )
    if unreadable_at is not None:
        place.read_to = unreadable_at
    elif records.keys:
        place.read_to = records.offsets[-1] + 1
    return unreadable_at


def _decode(records: Records, writers: WriterSchemas) -> tuple[list[tuple[int, Reply]], int | None]:
    """The replies with their offsets, up to the first that cannot be read, and the offset of that one."""
    values = [value for value in records.values if value is not None]
    if len(values) == len(records.keys) <= FEW_RECORDS:
        few = decode_few(contract("Reply"), records.keys, values, writers)
        if few is not None:
            return list(zip(records.offsets, map(reply_from_avro, few), strict=True)), None
    decoded = decode_batch(contract("Reply"), records.keys, records.values, writers, RECORD_BYTES_MAX)
    end = decoded.unreadable[0].row if decoded.unreadable else len(records.keys)
    replies = [
        (records.offsets[row["row"]], reply_from_avro({name: row[name] for name in _REPLY}))
        for row in decoded.frame.iter_rows(named=True)
        if row["row"] < end
    ]
    return replies, records.offsets[end] if decoded.unreadable else None


_REPLY: Final = tuple(field["name"] for field in contract("Reply").json["fields"])


def settle(connection: Connection, view: ChannelView, replies: Sequence[Reply], at: datetime) -> None:
    """Take in replies of this channel, in order. Called twice it changes nothing more. A fixed number of statements.

    The customers' rows are locked, in the order of their GUIDs, before the outbox is touched, as a clerk's change does;
    those of transactions after the customers', too.
    """
    answers = [reply for reply in replies if reply.transaction_status]
    events = [reply for reply in replies if not reply.transaction_status]
    if events:
        _settle_events(connection, view, events, at)
    if answers:
        settle_sales(connection, answers, at)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": SETTLED_CHANNEL})


def _settle_events(connection: Connection, view: ChannelView, replies: Sequence[Reply], at: datetime) -> None:
    erased = {reply.customer_id for reply in replies if reply.outcome is Outcome.ERASED}
    concerned = {reply.customer_id for reply in replies}
    tables_of(connection).lock_versions(connection, concerned)
    events = {reply.event_id: _row(reply, at) for reply in replies}
    numbers = {reply.customer_id: reply.account_number for reply in reversed(replies) if reply.account_number}
    close, give_number = _SETTLE[connection.dialect.name]
    connection.execute(text(close), {"replies": json.dumps(list(events.values()))})
    connection.execute(text(give_number), {"numbers": json.dumps(numbers)})
    erase(connection, sorted(erased), view.channel_id, at)
    show_again(connection, sorted(concerned - erased), view.filter, view.writers)


def _row(reply: Reply, at: datetime) -> dict[str, object]:
    """A reply as the statements below read it. A rejected event stays open: the clerk has to do something about it."""
    return {
        "event_id": reply.event_id,
        "customer_id": reply.customer_id,
        "outcome": reply.outcome.lower(),
        "reasons": reasons_as_json(reply.reasons) or None,
        "account_number": reply.account_number,
        "version": reply.version,
        "settled_at": None if reply.outcome is Outcome.REJECTED else at.isoformat(timespec="microseconds"),
    }


# Close the events, unless they are closed already; and give account numbers to customers that have none. `coalesce`
# keeps either database from going through every pending customer by the index of account numbers, not by these ids.
_SETTLE: Final = {
    "postgresql": (
        """
        UPDATE outbox SET outcome = r.outcome, reasons = r.reasons, account_number = r.account_number,
            version = r.version, settled_at = r.settled_at
        FROM json_to_recordset(CAST(:replies AS json)) AS r (
            event_id uuid, outcome text, reasons json, account_number text, version bigint, settled_at timestamptz)
        WHERE outbox.id = r.event_id AND outbox.settled_at IS NULL
        """,
        """
        UPDATE customers SET account_number = given.value FROM json_each_text(CAST(:numbers AS json)) AS given
        WHERE customers.customer_id = CAST(given.key AS uuid) AND coalesce(customers.account_number, '') = ''
        """,
    ),
    "sqlite": (
        """
        UPDATE outbox SET outcome = r.outcome, reasons = r.reasons, account_number = r.account_number,
            version = r.version, settled_at = r.settled_at
        FROM (SELECT json_extract(value, '$.event_id') AS event_id, json_extract(value, '$.outcome') AS outcome,
                json_extract(value, '$.reasons') AS reasons, json_extract(value, '$.account_number') AS account_number,
                json_extract(value, '$.version') AS version, json_extract(value, '$.settled_at') AS settled_at
            FROM json_each(:replies)) AS r
        WHERE outbox.id = r.event_id AND outbox.settled_at IS NULL
        """,
        """
        UPDATE customers SET account_number = given.value FROM json_each(:numbers) AS given
        WHERE customers.customer_id = given.key AND coalesce(customers.account_number, '') = ''
        """,
    ),
}


def _behind(place: _Place) -> bool:
    """Whether the database does not know yet how far we have read."""
    return place.end is not None or place.read_to != place.next_offset


def _note(engine: Engine, place: _Place) -> None:
    """Move the position past what is of no concern to this channel, and note the end where it was reached."""
    now = datetime.now(UTC)
    at_end = place.end is not None and place.end >= place.read_to
    next_offset = max(place.read_to, place.end or 0)
    with engine.begin() as connection:
        moves = {place.partition: (place.next_offset, next_offset)}
        move(connection, place.topic, moves, [place.partition] if at_end else (), now)
    place.next_offset = place.read_to = next_offset
    place.end = None
