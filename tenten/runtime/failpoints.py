"""Named points at which a process kills itself when told to, so that tests can see what a crash there does.

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
    """The point at which this process is to die, and at which pass, counted from 1."""

    name: str
    at_pass: int


_passes: Final = count(1)


def failpoint(name: str) -> None:
    """Die here, without any clean-up, if this is the point and the pass that the environment names. Else nothing."""
    armed = _armed()
    if armed is not None and armed.name == name and next(_passes) == armed.at_pass:
        os.kill(os.getpid(), signal.SIGKILL)


def check_failpoint(names: Sequence[str]) -> None:
    """Say at the start, not never, that the environment names a point which this process does not pass.

    Raises: `SettingsError`.
    """
    armed = _armed()
    if armed is not None and armed.name not in names:
        raise SettingsError(f"{VARIABLE}={armed.name} is no point of this process: choose one of {', '.join(names)}")


@cache
def _armed() -> Failpoint | None:
    """What the environment says, read once, when the first point is passed or checked."""
    value = os.environ.get(VARIABLE, "")
    if not value:
        return None
    name, at, number = value.partition("@")
    if at and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise SettingsError(f"{VARIABLE}={value}: after the @ stands at which pass, counted from 1")
    return Failpoint(name=name, at_pass=int(number or 1))
