"""Wait for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import Final

DEADLINE_SECONDS: Final = 180.0
"""Three times as long as anything takes on a busy machine."""

_PAUSE_SECONDS_MIN: Final = 0.005
_PAUSE_SECONDS_MAX: Final = 0.1
_PAUSE_SHARE: Final = 0.2
"""A pause lasts this share of the time waited so far: looking costs CPU that the awaited work needs."""


def wait_for(
    condition: Callable[[], bool],
    awaited: str,
    seconds: float = DEADLINE_SECONDS,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Return as soon as the condition holds; fail after `seconds`, or when `check`, called in between, raises."""
    started_at = time.monotonic()
    while not condition():
        check()
        waited = time.monotonic() - started_at
        assert waited < seconds, f"waited {seconds:g} s without success for {awaited}"
        time.sleep(min(max(waited * _PAUSE_SHARE, _PAUSE_SECONDS_MIN), _PAUSE_SECONDS_MAX))
