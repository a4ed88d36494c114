"""Repeat an attempt until it succeeds or the time is up."""

import time
from collections.abc import Callable
from typing import Any, Final

POLL_SECONDS: Final = 0.02


def try_until(seconds_max: float, attempt: Callable[[], Any]) -> bool:
    """Whether the attempt succeeds within this time; it is made at least once, every 20 ms."""
    deadline = time.monotonic() + seconds_max
    while not attempt():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
