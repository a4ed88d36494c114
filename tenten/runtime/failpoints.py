"""Named points at which a process kills itself on request, so that tests can crash it there.

`TENTEN_FAILPOINT=relay.after_ack` sends SIGKILL at the first pass, `TENTEN_FAILPOINT=relay.after_ack@3` at the third.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Final

from tenten.runtime.errors import SettingsError

VARIABLE: Final = "TENTEN_FAILPOINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """The point and the pass, counted from 1, at which this process is to die."""

    name: str
    at_pass: int


_passes: Final = count(1)


def failpoint(name: str) -> None:
    """Kill this process, without any clean-up, if the environment names this point and this is the pass."""
    armed = _armed()
    if armed is not None and armed.name == name and next(_passes) == armed.at_pass:
        os.kill(os.getpid(), signal.SIGKILL)


def check_failpoint(names: Sequence[str]) -> None:
    """Reject an unknown failpoint name at start-up. Raises: `SettingsError`."""
    armed = _armed()
    if armed is not None and armed.name not in names:
        raise SettingsError(
            f"{VARIABLE}={armed.name} is not a failpoint of this process: choose one of {', '.join(names)}"
        )


@cache
def _armed() -> Failpoint | None:
    """The failpoint of the environment, read once, when the first point is passed or checked."""
    value = os.environ.get(VARIABLE, "")
    if not value:
        return None
    name, at, number = value.partition("@")
    if at and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise SettingsError(f"{VARIABLE}={value}: write the pass, counted from 1, after the @")
    return Failpoint(name=name, at_pass=int(number or 1))
