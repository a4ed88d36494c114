"""The registrar: a thread of one customers worker that speaks with channels about their settings.

Every customers worker has the thread; the one that holds an advisory lock works, the others wait for the lock. Within a
second after a change of the settings (`NOTIFY`) it publishes them; it also looks once a minute. While it cannot work
the customers are numbered all the same.

    crash                            effect
    anywhere                         another worker takes over within some seconds, and publishes what is missing
"""

import random
import time
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Final

from sqlalchemy import Connection, Engine
from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.customers.join_reader import JoinReader
from tenten.consumers.headquarters.customers.settings_publisher import SettingsPublisher
from tenten.registry.apply import SETTINGS_CHANNEL
from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import KafkaRefused
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.sql.locks import try_advisory_lock
from tenten.sql.notifications import CommitListener

log = get_logger(__name__)

LOOK_SECONDS: Final = 60.0
"""How often settings and topic are looked at without a notification, on average."""

ELECTION_SECONDS: Final = 10.0
"""How often a worker tries to become the registrar."""

_LOCK: Final = "registrar"


@dataclass(frozen=True, slots=True)
class Registrar:
    """Publishes the settings of channels, while it is elected."""

    settings: Settings
    engine: Engine
    header: bytes
    """The framing of `ChannelSettings`."""
    writers: WriterSchemas

    def run(self, retry: Retry, stop: Event) -> None:
        """Wait for the election, and then work until `stop` is set. Raises: transient errors."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                listener = CommitListener(connection, SETTINGS_CHANNEL)
                try:
                    if self._wait_for_election(connection, listener, stop):
                        self._work(listener, retry, stop)
                except KafkaRefused as refusal:
                    log.warning("settings_not_published", code=error_code(refusal), remedy=str(refusal))
                    stop.wait(LOOK_SECONDS)
                finally:
                    listener.close()
            finally:
                # With the connection the lock is released.
                connection.invalidate()

    def _wait_for_election(self, connection: Connection, listener: CommitListener, stop: Event) -> bool:
        """Whether this worker is the registrar; False when `stop` is set."""
        while not stop.is_set():
            if try_advisory_lock(connection, _LOCK):
                return True
            listener.wait(ELECTION_SECONDS * random.uniform(0.8, 1.2), stop)
        return False

    def _work(self, listener: CommitListener, retry: Retry, stop: Event) -> None:
        with closing(SettingsPublisher(self.settings, self.engine, self.header)) as publisher:
            # Before requests to join are judged: a restored database takes back keys that it lacks.
            publisher.begin()
            with JoinReader(self.settings, self.engine, self.writers):
                while not stop.is_set():
                    # Also the answers to requests to join, which their reader has stored.
                    publisher.publish(stop)
                    retry.recovered()
                    look_at = time.monotonic() + LOOK_SECONDS * random.uniform(0.8, 1.2)
                    if not listener.wait(look_at - time.monotonic(), stop) and publisher.was_recreated():
                        publisher.begin()
