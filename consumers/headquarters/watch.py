"""The check of every minute, beside the batches of a worker of headquarters."""

import random
from threading import Event
from typing import Final

from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.kafka.transaction_session import TransactionSession
from tenten.runtime.retry import Retry

WATCH_SECONDS: Final = 60.0
"""The time between two checks, on average: workers that were started together do not ask together."""


def watch_repeatedly(guard: StreamGuard, session: TransactionSession, retry: Retry, stop: Event) -> None:
    """Check database and topics about once a minute until `stop` is set.

    Raises: as `StreamGuard.check_again`.
    """
    while not stop.wait(WATCH_SECONDS * random.uniform(0.8, 1.2)):
        if guard.check_again():
            session.begin_again()
        retry.recovered()
