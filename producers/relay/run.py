"""The relay (the P-job): brings the outbox of a channel to `async-customers` and `retail-transactions`.

Input: unsent rows of the outbox. Output: one record a row with the headers `id` and `type`: customers' events keyed by
customer, orders, cash-and-carry and ends of day keyed by channel.
Promise: every row is sent at least once, those of one key in their order; a row is marked sent only after the
broker has acknowledged it. A crash at any point repeats rows and loses none. A row without an answer after an hour,
or one that was sent to a topic that is gone, is sent again. One relay a channel: a second one is refused.

While one batch is on its way to the broker the one before it is marked and the one after it is read.
"""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from threading import Event
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from structlog import get_logger

from tenten.kafka.client_errors import refusal_of
from tenten.producers import outbox
from tenten.producers.outbox import UnsentRow
from tenten.producers.relay.maintenance import Chores, check_topics
from tenten.producers.relay.producer import NO_BATCH, DeliveryFailed, Line
from tenten.producers.till.loyalty import issue_kept_cards
from tenten.producers.till.open_channel import OpenChannel, open_channel
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import KafkaRefused, LockHeld, TentenError
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Reason
from tenten.sql.locks import relay_lock
from tenten.sql.notifications import SETTLED_CHANNEL, CommitListener

log = get_logger(__name__)

ROWS_MAX: Final = {"postgresql": 10_000, "sqlite": 2_000}
"""Rows of a batch. Few in SQLite: while a batch is marked no clerk can write."""

BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
"""Two batches are in memory at a time."""

_WAKE_SECONDS_MAX: Final = 1.0
"""The longest a row waits when its wake-up was lost."""

_PAUSE_SECONDS_MAX: Final = 5.0
_MARK_ATTEMPTS: Final = 5
_DEADLOCK: Final = "40P01"

TOO_LARGE: Final = {
    outbox.CUSTOMER: Reason(
        field="customer",
        code="too_large",
        text="This customer is too large to be sent: take addresses, contacts or attributes away.",
    ),
    outbox.RETAIL_TRANSACTION: Reason(
        field="lines", code="too_large", text="This is too large to be sent: it was recorded by another release."
    ),
}


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
            Line(settings, channel) as line,
        ):
            if line.connect(stop):
                patience.works()
                check_topics(connection, line)
                relay(opened, connection, line, marking, Chores(line, lock), stop=stop)


def relay(
    opened: OpenChannel, connection: Connection, line: Line, marking: "Marking", chores: Chores, *, stop: Event
) -> None:
    """Batch by batch, while the line holds. Raises: `DeliveryFailed`, and what the database and the chores raise."""
    # An answer may be what a kept card waits for.
    wake = CommitListener(connection, outbox.WAKE_CHANNEL, SETTLED_CHANNEL)
    on_the_way = NO_BATCH
    while not stop.is_set() or on_the_way.rows:
        chores.do_when_due(connection)
        if not stop.is_set():
            issue_kept_cards(opened, connection)
        rows = [] if stop.is_set() else _unsent(connection, [*on_the_way.sequences, *marking.sequences])
        acknowledged = line.acknowledged(on_the_way, stop)
        if len(acknowledged) < len(on_the_way.rows):
            marking.mark(acknowledged, on_the_way.topic_ids)
            marking.finish()
            line.check()
            return
        sent = line.send(rows, stop)
        marking.mark(acknowledged, on_the_way.topic_ids)
        for row in sent.too_large:
            outbox.reject(connection, row, TOO_LARGE[row.aggregate_type])
        on_the_way = sent
        if not rows:
            marking.finish()
            line.serve()
            wake.wait(_WAKE_SECONDS_MAX, stop)


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

    def mark(self, sequences: Sequence[int], topic_ids: Mapping[str, str]) -> None:
        """Begin to mark these rows once those before are marked. Raises: what marking those has raised."""
        self.finish()
        if sequences:
            self.sequences = sequences
            self._running = self._thread.submit(self._mark, sequences, topic_ids)

    def finish(self) -> None:
        """Wait until everything is marked. Raises: what the database has raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
        self.sequences = ()

    def _mark(self, sequences: Sequence[int], topic_ids: Mapping[str, str]) -> None:
        for attempt in count(1):
            try:
                outbox.mark_sent(self._connection, sequences, datetime.now(UTC), topic_ids)
                break
            except OperationalError as error:
                # Settlement has these rows in another order: the answers were quicker than we are.
                if getattr(error.orig, "sqlstate", None) != _DEADLOCK or attempt == _MARK_ATTEMPTS:
                    raise
        failpoint("relay.after_mark")


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
            refusal = refusal_of(error) if isinstance(error, KafkaException) else None
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
