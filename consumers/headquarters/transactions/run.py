"""The transactions consumer: from `retail-transactions` to sales orders and statements.

Input: `retail-transactions`, as a member of the consumer group `transactions`; start as many as there are partitions.
Output: headquarters' database; `async-customers` (the customers that transactions brought along), `channel-replies`
and `retail-transactions.dlq`.
Promise: each transaction in exactly one sales order or statement, none with a customer that is not synchronized.

One thread takes batches in: the database commits first, then Kafka with the offsets, and with the customers' events.

    it dies                          then
    before the SQL commit            nothing happened; the batch is read again
    between the commits              Kafka aborts; the batch is read again; what comes again only counts
    after the Kafka commit           nothing repeats

A second thread lets through what waits, whenever this or the headquarters consumer has committed something, and each
second. A round is one SQL transaction, with its answers, so it happens or it does not.
A third sends the answers, and strikes them off after that, so a crash between repeats them.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Event, Thread
from typing import Any, Final

from confluent_kafka import Producer
from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.headquarters.known_channels import known_channels
from tenten.consumers.headquarters.positions import BATCH_COMMITTED_CHANNEL, StreamPositions
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.consumers.headquarters.transactions.classify import Judged, take_in
from tenten.consumers.headquarters.transactions.ingest import record
from tenten.consumers.headquarters.transactions.release import release
from tenten.consumers.headquarters.transactions.reply_outbox import ANSWERS_CHANNEL, send_answers
from tenten.consumers.headquarters.unreadable import UnreadableStreak, send_dead_letters, stop_when_too_many
from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration, producer_configuration
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.transaction_session import BatchLimits, TransactionSession
from tenten.kafka.transactional_producer import Outputs
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.topics import ASYNC_CUSTOMERS, CHANNEL_REPLIES, RETAIL_TRANSACTIONS, RETAIL_TRANSACTIONS_DLQ
from tenten.sql.engine import open_database
from tenten.sql.migrations import check_version
from tenten.sql.notifications import listening
from tenten.sql.slots import Slot

log = get_logger(__name__)

GROUP: Final = "transactions"

SWEEP_SECONDS: Final = 1.0
"""How often all that waits is looked at: two transactions may not have seen each other."""

SWEEP_SECONDS_MAX: Final = 30.0
"""The same where looking takes long."""


def run(settings: Settings, stop: Event, slot_number: int | None = None) -> None:
    """Take transactions in and let them through until `stop` is set.

    Raises: `DatabaseOlderThanStream`, `TopicChanged`, `TooManyDeadLetters`, `KafkaRefused`, `SettingsError`: what
    waiting cannot mend, each with what to do.
    """
    with ExitStack() as ends:
        engine = open_database(settings.headquarters_database())
        ends.callback(engine.dispose)
        try:
            Retry(GROUP, HEADQUARTERS, stop).run_until_success(partial(_begin, settings, engine))
        except Stopped:
            return
        beside = [
            ends.enter_context(_Beside("release", stop, partial(release_on, settings, engine))),
            ends.enter_context(_Beside("answers", stop, partial(answer_on, settings, engine))),
        ]
        writers = writer_schemas(settings)
        channels = known_channels(settings).legal_entity_by_channel
        guard = StreamGuard(settings, engine, GROUP, RETAIL_TRANSACTIONS)
        session = TransactionSession(
            name=GROUP,
            topic=settings.topic(RETAIL_TRANSACTIONS),
            consumer=consumer_configuration(settings, **{"group.id": settings.group(GROUP)}),
            producer=producer_configuration(settings),
            transactional_id=ends.enter_context(Slot(engine, settings, GROUP, slot_number)).transactional_id,
            on_assigned=guard.check,
            limits=BatchLimits(records_max=settings.headquarters.batch_records_max),
            stop=stop,
        )
        ends.enter_context(session)
        unreadable = UnreadableStreak()
        for batch in session.batches():
            with session.attempt(batch):
                values = [message.value() for message in batch.messages]
                keys = [message.key() for message in batch.messages]
                judged = take_in(keys, values, writers, channels, record_positions(batch.topic, batch.messages))
                going_on = unreadable.after([bad.row for bad in judged.unreadable], len(values))
                stop_when_too_many(going_on, settings)
                failpoint("transactions.while_judging")
                reached = StreamPositions(stream=guard.stream, next_offsets=batch.next_offsets)
                dead = (*judged.unreadable, *record(engine, judged, reached))
                failpoint("transactions.after_sql_commit")
                with session.transaction(batch) as out:
                    _forward(settings, out, judged)
                    send_dead_letters(settings, out, batch, dead, RETAIL_TRANSACTIONS_DLQ)
                unreadable = going_on
                log.info(
                    "transactions_taken_in",
                    sales=judged.sales.height,
                    ends_of_days=len(judged.days),
                    forwarded=len(judged.forwards),
                    dead_letters=len(dead),
                    next_offsets=batch.next_offsets,
                )
        for thread in beside:
            thread.check()


def _begin(settings: Settings, engine: Engine) -> None:
    """Ask those without whom nothing goes: the database, and whoever is told our schemas."""
    check_version(engine, "headquarters")
    publish_schemas(settings)


def _forward(settings: Settings, out: Outputs, judged: Judged) -> None:
    """The customers' events that came along, repeats included: headquarters knows an event by its id."""
    topic = settings.topic(ASYNC_CUSTOMERS)
    for one in judged.forwards:
        headers: list[tuple[str, str | bytes | None]] = [("id", one.event_id), ("type", "CustomerForwarded")]
        out.send(topic, one.customer_id.encode(), one.value, headers)


class _Beside:
    """A thread that does its work until `stop` is set. Use it as a context manager; when it fails, everything stops."""

    def __init__(self, name: str, stop: Event, work: Callable[[Retry, Event], None]) -> None:
        self._name = name
        self._stop = stop
        self._work = work
        self._failure: BaseException | None = None

    def __enter__(self) -> "_Beside":
        self._thread = Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(REQUEST_SECONDS * 2)

    def check(self) -> None:
        """Raises: what the thread has failed with."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        retry = Retry(self._name, HEADQUARTERS, self._stop)
        try:
            while not self._stop.is_set():
                with retry.retrying():
                    self._work(retry, self._stop)
        except BaseException as error:  # noqa: BLE001 - raised again by `check`, in the main thread
            self._failure = error
            self._stop.set()


def release_on(settings: Settings, engine: Engine, retry: Retry, stop: Event) -> None:
    """Round after round until `stop` is set: each time somebody has committed something, and each second.

    Raises: what the database raises.
    """
    with listening(engine, BATCH_COMMITTED_CHANNEL) as wake:
        sweep_at, swept_at, busy = 0.0, 0.0, False
        while not stop.is_set():
            began = time.monotonic()
            # As long as notes say what is due, a sweep would look at much and find the same.
            sweep = began >= (swept_at + SWEEP_SECONDS_MAX if busy else sweep_at)
            found = release(engine, settings.headquarters.waiting_seconds_max, sweep=sweep)
            if sweep:
                # A long one takes a tenth of the time.
                took = time.monotonic() - began
                swept_at = began
                sweep_at = began if found.full else began + min(max(SWEEP_SECONDS, 10 * took), SWEEP_SECONDS_MAX)
            busy = found.noted
            retry.recovered()
            if found.released or found.statements:
                log.info("released", transactions=found.released, statements=found.statements)
            if not found.full:
                wake.wait(SWEEP_SECONDS, stop)


def answer_on(settings: Settings, engine: Engine, retry: Retry, stop: Event) -> None:
    """Send answers until `stop` is set: each time some were written, and each second.

    Raises: what the database and the broker raise.
    """
    producer = Producer(producer_configuration(settings, **_PRODUCER))
    try:
        with listening(engine, ANSWERS_CHANNEL) as wake:
            while not stop.is_set():
                sent = send_answers(engine, producer, settings.topic(CHANNEL_REPLIES))
                retry.recovered()
                if sent:
                    log.info("answers_sent", answers=sent)
                wake.wait(SWEEP_SECONDS, stop)
    finally:
        producer.purge()


_PRODUCER: Final[dict[str, Any]] = {
    # What is not acknowledged within the time of a flush is sent anew, from the database.
    "delivery.timeout.ms": int(REQUEST_SECONDS * 1000),
    # No call for each record that is well.
    "delivery.report.only.error": True,
}
