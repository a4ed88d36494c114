"""The scheduled verification: a thread of a customers worker compares database and topic once a day, slowly.

Whichever worker finds that it is due does it; a lock and the time of the last result, both in the database, keep the
others from repeating it. It works a fifth of the time, so that the worker's batches hardly notice it.
"""

import random
import time
from threading import Event
from typing import Final

from sqlalchemy import Engine, func, select
from structlog import get_logger

from tenten.consumers.headquarters.customers.verify import verify
from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import LockHeld
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import verifications

log = get_logger(__name__)

CHECK_SECONDS: Final = 600.0
"""The time between two looks whether it is due, on average; workers that were started together do not look together."""

_REST: Final = 4
"""It rests four times as long as it has worked."""

_REST_SECONDS_MAX: Final = 10.0


def verify_when_due(settings: Settings, engine: Engine, _: Retry, stop: Event) -> None:
    """Verify whenever it is due, until `stop` is set. A failure is logged; the verification is repeated when next due.

    Raises: the errors of the database.
    """
    hours = settings.headquarters.verify_hours
    if not hours:
        stop.wait()
    while not stop.wait(CHECK_SECONDS * random.uniform(0.5, 1.5)):
        if not _is_due(engine, hours):
            continue
        try:
            verify(settings, engine, _Resting(stop).progress)
        except (LockHeld, Stopped):
            continue
        except Exception as failure:  # noqa: BLE001 - the worker goes on: nothing depends on this comparison
            log.warning("verification_failed", error=type(failure).__name__, code=error_code(failure))


def _is_due(engine: Engine, hours: int) -> bool:
    """Whether the last verification was this long ago, by the database's clock."""
    limit = func.now() - func.make_interval(0, 0, 0, 0, hours)
    with engine.begin() as headquarters:
        recent = headquarters.scalar(select(func.count()).where(verifications.c.finished_at > limit))
    return not recent


class _Resting:
    """Rests after each step of a verification; stops it when the worker stops."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._rested_at = time.monotonic()

    def progress(self, _unit: str, _done: int, _total: int) -> None:
        """Rest. Raises: `Stopped`."""
        worked = time.monotonic() - self._rested_at
        if self._stop.wait(min(_REST * worked, _REST_SECONDS_MAX)):
            raise Stopped
        self._rested_at = time.monotonic()
