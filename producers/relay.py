"""The relay (the P-job): brings the outbox of a channel to `async-customers`.

Input: unsent rows of the outbox. Output: one record a row, keyed by customer, with the headers `id` and `type`.
Promise: every row is sent at least once, those of one customer in their order; a row is marked sent only after the
broker has acknowledged it. A crash at any point repeats rows and loses none. A row without an answer after an hour,
or one that was sent to a topic that is gone, is sent again. One relay a channel: a second one is refused.

While one batch is on its way to the broker the one before it is marked and the one after it is read.
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from psycopg import Connection as PostgresConnection
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import OperationalError
from structlog import get_logger

from commerce.database import DatabaseLock, relay_lock
from commerce.failpoints import failpoint
from commerce.failures import KafkaRefused, LockHeld, TentenError, is_transient
from commerce.kafka import TopicInfo, check_partitions, producer_configuration, refused, topic_ids
from commerce.schema_exchange import publish_schemas
from commerce.settings import Settings
from producers import outbox
from producers.channel import OpenChannel, open_channel
from producers.outbox import UnsentRow
from schemas.channel import topics
from schemas.records import Reason
from schemas.topics import ASYNC_CUSTOMERS, RECORD_BYTES_MAX
from schemas.wire import WriterSchemas, contract, encode, reframe

log = get_logger(__name__)

ROWS_MAX: Final = {"postgresql": 10_000, "sqlite": 2_000}
"""Rows of a batch. Few in SQLite: while a batch is marked no clerk can write."""

BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
"""Two batches are in memory at a time."""

ANSWER_SECONDS_MAX: Final = 3600
"""A row that has no answer for so long is sent again."""

SETTLED_DAYS_KEPT: Final = 30
"""As long as replies are kept. Then a settled row goes, and the personal data in it."""

CHORES_SECONDS: Final = 60
"""How often the topic is looked at, and what is overdue or no longer needed."""

_FIRST_CHORES_SECONDS: Final = 10
"""After a start the answers that came meanwhile are read first."""

_WAKE_SECONDS_MAX: Final = 1.0
"""The longest a row waits when its wake-up was lost."""

_LISTEN_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 0.005
_QUIET_LOOK_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 10.0
"""How often a SQLite database is asked whether somebody has written; less often after so long without a change."""

_ANSWER_SECONDS: Final = 1.0
"""How long the broker is given to answer at the start before it is asked again."""

_ACK_SECONDS: Final = 0.1
_AWAY_SECONDS: Final = 3.0
"""After so long without an acknowledgement the log says so."""

_DRAIN_SECONDS: Final = 5.0
"""How long the last batch is waited for when the relay shall end."""

_PAUSE_SECONDS_MAX: Final = 5.0
_SLICE_ROWS: Final = 1_000
_MARK_ATTEMPTS: Final = 5
_DEADLOCK: Final = "40P01"

_PRODUCER: Final[dict[str, Any]] = {
    # A retry is neither a duplicate nor out of order: the broker knows what it has by sequence numbers (five in
    # flight at most).
    "enable.idempotence": True,
    "acks": "all",
    "max.in.flight.requests.per.connection": 5,
    # Never give a record up and go on with the next: while the line is down everything waits, in its order. What
    # waits is one batch, and it is in the database as well.
    "message.timeout.ms": 0,
    # The line heals within a second, and a broker that is away is not flooded.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 1_000,
    # A backlog travels in large requests, which cost the broker a fraction. A single record does not wait so long:
    # waiting for its acknowledgement flushes it at once.
    "linger.ms": 20,
    # Less than the topic takes, so that only this client ever refuses one for its size, and that one alone.
    "message.max.bytes": RECORD_BYTES_MAX - 64 * 1024,
    # An acknowledged batch is an empty queue without errors: no call per record.
    "delivery.report.only.error": True,
}


TOO_LARGE: Final = Reason(
    field="customer",
    code="too_large",
    text="This customer is too large to be sent: take addresses, contacts or attributes away.",
)


class DeliveryFailed(KafkaException):
    """Kafka has refused records for good, or the producer is of no use any more; the rows stay unsent. Carries the
    error.
    """


def run(channel: str, settings: Settings, stop: Event) -> None:
    """Relay the channel's outbox until `stop` is set; then the batch on its way is still waited for, some seconds.

    Waits for a database or broker that is away, however long; says so once.
    Raises: `LockHeld` when another relay of this channel runs, `KafkaRefused`, `DatabaseRefused`, `SettingsError` for
    what waiting cannot mend. Once it has worked it waits for Kafka and for the lock, too.
    """
    patience = _Patience(channel=channel, stop=stop)
    while not stop.is_set():
        with (
            patience.surviving(),
            open_channel(settings, channel) as opened,
            relay_lock(opened.engine) as lock,
            _session(opened) as connection,
            Marking(opened) as marking,
            Line(settings) as line,
        ):
            if line.connect(stop):
                patience.works()
                check_topic(connection, line)
                relay(connection, line, marking, Chores(line, lock), stop)


def relay(connection: Connection, line: "Line", marking: "Marking", chores: "Chores", stop: Event) -> None:
    """Batch by batch, while the line holds. Raises: `DeliveryFailed`, and what the database and the chores raise."""
    wake = Wake(connection)
    on_the_way = NO_BATCH
    while not stop.is_set() or on_the_way.rows:
        chores.do_when_due(connection)
        rows = [] if stop.is_set() else _unsent(connection, [*on_the_way.sequences, *marking.sequences])
        acknowledged = line.acknowledged(on_the_way, stop)
        if len(acknowledged) < len(on_the_way.rows):
            marking.mark(acknowledged, on_the_way.topic_id)
            marking.finish()
            line.check()
            return
        sent = line.send(rows, stop)
        marking.mark(acknowledged, on_the_way.topic_id)
        for row in sent.too_large:
            outbox.reject(connection, row.sequence, TOO_LARGE)
        on_the_way = sent
        if not rows:
            marking.finish()
            line.serve()
            wake.wait(stop)


def _unsent(connection: Connection, without: Sequence[int]) -> list[UnsentRow]:
    """The next rows to send."""
    rows = outbox.unsent(connection, ROWS_MAX[connection.dialect.name], BATCH_BYTES_MAX, without)
    if rows:
        failpoint("relay.after_select")
    return rows


class Marking:
    """Marks the rows of acknowledged batches as sent, a batch at a time, while the caller goes on with the next one."""

    def __init__(self, opened: OpenChannel) -> None:
        self._opened = opened
        self._exit = ExitStack()
        self._running: Future[None] | None = None
        self.sequences: Sequence[int] = ()
        """What may not be marked yet."""

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            self._connection = entered.enter_context(_session(self._opened))
            self._thread = entered.enter_context(ThreadPoolExecutor(1, "marking"))
            self._exit = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def mark(self, sequences: Sequence[int], topic_id: str) -> None:
        """Begin to mark these rows once those before are marked. Raises: what marking those has raised."""
        self.finish()
        if sequences:
            self.sequences = sequences
            self._running = self._thread.submit(self._mark, sequences, topic_id)

    def finish(self) -> None:
        """Wait until everything is marked. Raises: what the database has raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
        self.sequences = ()

    def _mark(self, sequences: Sequence[int], topic_id: str) -> None:
        for attempt in count(1):
            try:
                outbox.mark_sent(self._connection, sequences, datetime.now(UTC), topic_id)
                break
            except OperationalError as error:
                # Settlement has these rows in another order: the answers were quicker than we are.
                if getattr(error.orig, "sqlstate", None) != _DEADLOCK or attempt == _MARK_ATTEMPTS:
                    raise
        failpoint("relay.after_mark")


class Batch(NamedTuple):
    """Rows on their way to the broker."""

    rows: list[UnsentRow]
    topic_id: str
    """What the topic's id was before they were sent: at worst they are sent again."""
    too_large: list[UnsentRow]
    """Rows that cannot be sent."""

    @property
    def sequences(self) -> list[int]:
        """What names the rows in the outbox."""
        return [row.sequence for row in self.rows]


NO_BATCH: Final = Batch([], "", [])


class Line:
    """The way to the topic: a producer, and what the topic is now. Use it as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topic = settings.topic(ASYNC_CUSTOMERS)
        self.info = TopicInfo(topic_id="", partitions=0)
        self._framing: Callable[[bytes], bytes] | None = None
        self._failed: dict[str, KafkaError] = {}

    def __enter__(self) -> Self:
        own = {**_PRODUCER, "on_delivery": self._delivery_failed}
        self._producer = Producer(producer_configuration(self.settings, **own))
        return self

    def __exit__(self, *_: object) -> None:
        # What is still on its way is in the outbox, unsent.
        self._producer.purge()
        self._producer.close()

    def connect(self, stop: Event) -> bool:
        """Wait until the broker answers, then learn what there is to know; False when told to stop meanwhile.

        Raises: `KafkaRefused`, `KafkaException`, `RegistryAway`, `RegistryRefused`.
        """
        while not stop.is_set():
            try:
                self._producer.list_topics(self.topic, timeout=_ANSWER_SECONDS)
            except KafkaException as error:
                if not is_transient(error):
                    raise
                continue
            self.look()
            self._framing = framing(publish_schemas(self.settings)["CustomerEvent"])
            return True
        return False

    def look(self) -> None:
        """Learn what the topic is now. Raises: `KafkaRefused`, `KafkaException`."""
        self.info = topic_ids(self.settings, [self.topic])[self.topic]

    def send(self, rows: Sequence[UnsentRow], stop: Event) -> Batch:
        """Hand these rows to the producer, in this order. Waits only for room in its queue."""
        if not rows:
            return NO_BATCH
        produce, topic, framing = self._producer.produce, self.topic, self._framing
        sent = []
        too_large = []
        for row in rows:
            _, event_id, customer_id, kind, payload = row
            value = payload if framing is None else framing(payload)
            try:
                produce(topic, value, customer_id, headers=[("id", event_id), ("type", kind)])
            except BufferError:
                if not self._send_slowly(row, value, stop):
                    break
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise DeliveryFailed(error.args[0]) from error
                too_large.append(row)
                continue
            sent.append(row)
        failpoint("relay.after_produce")
        return Batch(sent, self.info.topic_id, too_large)

    def _send_slowly(self, row: UnsentRow, value: bytes, stop: Event) -> bool:
        """Hand one row to the producer once there is room; False when told to stop before."""
        while not stop.is_set():
            self._producer.poll(_ACK_SECONDS)
            try:
                headers: dict[str, str | bytes | None] = {"id": row.event_id, "type": row.type}
                self._producer.produce(self.topic, value, row.customer_id, headers=headers)
            except BufferError:
                continue
            return True
        return False

    def acknowledged(self, batch: Batch, stop: Event) -> list[int]:
        """Wait until the broker has the batch, however long; gives the sequences of the rows that it has.

        Not those of a customer of whom it refused one: none may overtake another. None when told to stop and it takes
        too long.
        """
        if not batch.rows:
            return []
        started = time.monotonic()
        waiting = False
        stop_at = None
        while self._producer.flush(_ACK_SECONDS):
            now = time.monotonic()
            if stop.is_set():
                stop_at = stop_at or now + _DRAIN_SECONDS
                if now > stop_at:
                    return []
            if not waiting and now - started > _AWAY_SECONDS:
                waiting = True
                log.warning("relay_waiting", topic=self.topic, rows=len(batch.rows))
        if waiting:
            log.info("relay_goes_on", topic=self.topic, waited_seconds=round(time.monotonic() - started, 1))
        failpoint("relay.after_ack")
        return [row.sequence for row in batch.rows if row.customer_id not in self._failed]

    def check(self) -> None:
        """Raises: `DeliveryFailed` when the broker has refused records."""
        for error in self._failed.values():
            raise DeliveryFailed(error)

    def serve(self) -> None:
        """Let the client say what it has to say."""
        self._producer.poll(0)

    def _delivery_failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed[(message.key() or b"").decode()] = error


def framing(header: bytes) -> Callable[[bytes], bytes] | None:
    """What puts events behind the header that the topic's readers expect; None when they stay as they are."""
    schema = contract("CustomerEvent")
    if header == schema.header:
        # Without a registry the header names the schema an event was written with, whatever release that was.
        return None

    def framed(payload: bytes) -> bytes:
        if payload.startswith(schema.header):
            return reframe(payload, header)
        return encode(schema, WriterSchemas().decode(payload, schema), header)

    return framed


class Wake:
    """Waits until somebody may have put something into the outbox."""

    def __init__(self, connection: Connection) -> None:
        self._driver: Any = connection.connection.driver_connection
        self._is_postgresql = isinstance(self._driver, PostgresConnection)
        self._seen: Any = None
        self._changed_at = time.monotonic()
        if self._is_postgresql:
            # Before the outbox is read first, so that nothing falls between.
            connection.execute(text(f"LISTEN {outbox.WAKE_CHANNEL}"))

    def wait(self, stop: Event) -> None:
        """Return at once when something was committed since the last time, else as soon as it is; at the latest after
        a second.
        """
        give_up_at = time.monotonic() + _WAKE_SECONDS_MAX
        while not stop.is_set() and time.monotonic() < give_up_at:
            if self._is_postgresql:
                if list(self._driver.notifies(timeout=_LISTEN_SECONDS, stop_after=1)):
                    return
            elif self._seen != (seen := self._driver.execute("PRAGMA data_version").fetchone()):
                # Changes with every commit of another connection, of this or another process.
                self._seen, self._changed_at = seen, time.monotonic()
                return
            else:
                is_quiet = time.monotonic() - self._changed_at > _QUIET_SECONDS
                stop.wait(_QUIET_LOOK_SECONDS if is_quiet else _LOOK_SECONDS)


class Chores:
    """What is done once a minute: look whether the topic is the same, send again what has no answer, prune."""

    def __init__(self, line: Line, lock: DatabaseLock) -> None:
        self._line = line
        self._lock = lock
        self._next_at = time.monotonic() + _FIRST_CHORES_SECONDS

    def do_when_due(self, connection: Connection) -> None:
        """Raises: `LockHeld`, `TopicChanged`, `KafkaRefused`; what the database raises."""
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + CHORES_SECONDS
        if not self._lock.is_held():
            raise LockHeld("the lock of this channel's relay was lost with its connection")
        try:
            self._line.look()
        except KafkaException as error:
            if not is_transient(error):
                raise
            return
        now = datetime.now(UTC)
        check_topic(connection, self._line)
        send_again(connection, now - timedelta(seconds=ANSWER_SECONDS_MAX), self._line.info.topic_id)
        prune(connection, now - timedelta(days=SETTLED_DAYS_KEPT))


def check_topic(connection: Connection, line: Line) -> None:
    """Note the topic when it is seen first. Raises: `TopicChanged` when it has other partitions than it had."""
    key = {"topic": line.topic, "topic_id": line.info.topic_id}
    known = connection.scalar(select(topics.c.partitions).filter_by(**key))
    if known is None:
        connection.execute(insert(topics).values(**key, partitions=line.info.partitions))
    else:
        check_partitions(line.topic, known, line.info.partitions)


def send_again(connection: Connection, sent_before: datetime, topic_id: str) -> None:
    """Make unsent, in slices, what has no answer and was sent before that time or to a topic that is gone."""
    while sequences := outbox.overdue(connection, sent_before, topic_id, _SLICE_ROWS):
        outbox.mark_unsent(connection, sequences)
        log.info("sent_again", rows=len(sequences))


def prune(connection: Connection, settled_before: datetime) -> None:
    """Delete, in slices, what was settled before that time."""
    while sequences := outbox.settled_before(connection, settled_before, _SLICE_ROWS):
        outbox.prune(connection, sequences)
        log.info("pruned", rows=len(sequences))


@contextmanager
def _session(opened: OpenChannel) -> Generator[Connection]:
    """A connection for the relay alone, on which each statement is a transaction."""
    with opened.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


class _Patience:
    """Waits, longer each time, for what may pass; says so once, and once more when it is over."""

    def __init__(self, channel: str, stop: Event) -> None:
        self._channel = channel
        self._stop = stop
        self._has_worked = False
        self._failures = 0
        self._works_since = math.inf

    def works(self) -> None:
        """Called when the relay begins to work."""
        if self._failures:
            log.info("relay_works", channel=self._channel)
        self._has_worked = True
        self._works_since = time.monotonic()

    @contextmanager
    def surviving(self) -> Generator[None]:
        """Pause after what may pass by itself; everything else is raised."""
        self._works_since = math.inf
        try:
            yield
        except Exception as error:
            if time.monotonic() - self._works_since > _PAUSE_SECONDS_MAX:
                self._failures = 0
            refusal = refused(error) if isinstance(error, KafkaException) else None
            if not self._has_worked and refusal is not None:
                raise refusal from error
            may_pass = isinstance(error, DeliveryFailed) or is_transient(error)
            if not may_pass and not (self._has_worked and isinstance(error, KafkaRefused | LockHeld)):
                raise
            if self._failures == 0:
                log.warning(
                    "relay_interrupted",
                    channel=self._channel,
                    error=type(error).__name__,
                    code=_code(error),
                    advice=_advice(error, refusal),
                )
            self._stop.wait(min(_PAUSE_SECONDS_MAX, 0.05 * 2.0 ** min(self._failures, 7)))
            self._failures += 1


def _advice(error: Exception, refusal: KafkaRefused | None) -> str:
    """What to do, where there is something to do; never a database's own text, which may hold personal data."""
    told = refusal or error
    return str(told) if isinstance(told, TentenError) else "waiting for it to pass"


def _code(error: Exception) -> str:
    """The code that Kafka or the database gave the error."""
    inner = error.args[0] if error.args else None
    if isinstance(inner, KafkaError):
        return str(inner.name())
    database = getattr(error, "orig", error)
    return str(getattr(database, "sqlstate", None) or getattr(database, "sqlite_errorname", None) or "")
