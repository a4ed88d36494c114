"""The heartbeat of a channel: its state, sent to `channel-status` by a thread of the relay.

Headquarters sees from it that the channel runs, and whether anything in it is late or wrong. A heartbeat that cannot be
read or sent is left out: its absence is what headquarters notices. A store that has joined signs it, as its events.
"""

import random
import time
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from tenten.avro.wire import contract, encode
from tenten.identity.signing import RecordSigner
from tenten.identity.store_identity import read_identity
from tenten.kafka.topics_admin import topic_exists
from tenten.producers.relay.channel_report import ChannelReport
from tenten.producers.relay.producer import RelayProducer
from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.error_codes import error_code
from tenten.schemas.messages import Heartbeat, to_avro
from tenten.schemas.topics import CHANNEL_STATUS
from tenten.sql.engine import consistent_view
from tenten.sql.loading import read_loading

log = get_logger(__name__)

BUSY_SECONDS: Final = 15.0
"""The time between two heartbeats while the channel has changes on their way, or a problem."""

QUIET_SECONDS: Final = 60.0
"""The longest time between two heartbeats: a third less than the silence after which a channel counts as missing."""

_LOOK_SECONDS: Final = 1.0
"""How often is looked whether the key has changed."""

_LOADING_SECONDS: Final = 5.0
"""How often is looked whether a load of all customers has begun or ended."""

_JITTER: Final = 0.2
"""Heartbeats come up to this part earlier: stores that were started together do not send together."""


class HeartbeatThread:
    """Sends heartbeats until its end. Use it as a context manager, within that of the producer."""

    def __init__(self, opened: OpenChannel, producer: RelayProducer) -> None:
        self._opened = opened
        self._producer = producer
        self._report = ChannelReport(opened.settings, opened.name)
        self._topic = opened.settings.topic(CHANNEL_STATUS)
        self._topic_exists = False
        self._last: Heartbeat | None = None
        self._signer: RecordSigner | None = None
        self._is_failure_logged = self._is_missing_logged = False
        self._look_at = 0.0
        self._ended = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        pause_seconds = 0.0
        while not self._waits(pause_seconds * random.uniform(1 - _JITTER, 1)):
            pause_seconds = QUIET_SECONDS
            try:
                with consistent_view(self._opened.engine) as connection:
                    heartbeat = self._report.read(connection)
                    identity = read_identity(connection)
                self._signer = None if identity is None else RecordSigner.of_store(identity)
                if self._find_topic():
                    self._send(heartbeat)
                    if _is_busy(heartbeat, self._last):
                        pause_seconds = BUSY_SECONDS
                    self._last = heartbeat
            except Exception as error:  # noqa: BLE001 - whatever fails here, the relay itself continues
                self._log_failure(error)
            else:
                self._is_failure_logged = False

    def _waits(self, seconds: float) -> bool:
        """Wait until the next heartbeat is due: at once when the relay signs with another key, and when a load of all
        customers begins or ends. Whether the relay has ended.

        Headquarters does not believe the last heartbeat any more when the key has changed.
        """
        until = time.monotonic() + seconds
        signer = self._producer.signer
        while not self._ended.is_set():
            left = until - time.monotonic()
            if left <= 0 or self._producer.signer is not signer or self._loading_has_changed():
                return False
            self._ended.wait(min(left, _LOOK_SECONDS))
        return True

    def _loading_has_changed(self) -> bool:
        """Whether a load has begun or ended since the last heartbeat; looked up every few seconds."""
        if self._last is None or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOADING_SECONDS
        with suppress(DBAPIError), consistent_view(self._opened.engine) as connection:
            # Where that fails, the next heartbeat finds it out.
            load = read_loading(connection, self._opened.settings, datetime.now(UTC))
            return (load is None) != (self._last.loading is None)
        return False

    def _find_topic(self) -> bool:
        """Whether the topic exists; asked until it does. Raises: as `topic_exists`."""
        if not self._topic_exists:
            self._topic_exists = topic_exists(self._opened.settings, self._topic)
            if not self._topic_exists and not self._is_missing_logged:
                self._is_missing_logged = True
                log.warning("heartbeat_topic_missing", channel=self._opened.name, topic=self._topic)
        return self._topic_exists

    def _send(self, heartbeat: Heartbeat) -> None:
        """Queue a heartbeat, unless the broker is away: the next one has newer content."""
        if self._producer.is_delivering():
            value = encode(contract(CHANNEL_STATUS.value), to_avro(heartbeat), self._producer.heartbeat_header)
            self._producer.send_heartbeat(self._topic, value, self._signer, self._look_for_topic_again)

    def _look_for_topic_again(self) -> None:
        """Called when the broker has not accepted a heartbeat."""
        self._topic_exists = False

    def _log_failure(self, error: Exception) -> None:
        if not self._is_failure_logged:
            self._is_failure_logged = True
            log.warning(
                "heartbeat_failed", channel=self._opened.name, error=type(error).__name__, code=error_code(error)
            )


def _is_busy(heartbeat: Heartbeat, last: Heartbeat | None) -> bool:
    """Whether there is something to report: changes on their way, a load, problems, or another number of customers."""
    late = heartbeat.oldest_unsent_at or heartbeat.oldest_unsettled_at or heartbeat.loading
    return late is not None or bool(heartbeat.problems) or last is None or last.customers != heartbeat.customers
