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

HEADQUARTERS: Final = (
    "headquarters.after_poll",
    "headquarters.while_judging",
    "headquarters.before_sql_commit",
    "headquarters.after_sql_commit",
    "headquarters.after_begin",
    "headquarters.after_produce",
    "headquarters.after_send_offsets",
    "headquarters.before_kafka_commit",
    "headquarters.after_kafka_commit",
    "headquarters.in_on_revoke",
)
"""In the order in which a batch passes them; the last one at a rebalance."""

TRANSACTIONS: Final = (
    "transactions.after_poll",
    "transactions.while_judging",
    "transactions.before_sql_commit",
    "transactions.after_sql_commit",
    "transactions.after_begin",
    "transactions.after_produce",
    "transactions.after_send_offsets",
    "transactions.before_kafka_commit",
    "transactions.after_kafka_commit",
    "transactions.in_on_revoke",
    "release.before_commit",
    "release.after_commit",
    "answers.after_send",
)
"""As above for a batch; then those of a round that lets through what waits, and sends the answers."""

CHANNEL: Final = (
    "relay.after_select",
    "relay.after_produce",
    "relay.after_ack",
    "relay.after_mark",
    "distribution.after_poll",
    "distribution.before_commit",
    "distribution.after_commit",
    "settlement.before_commit",
    "settlement.after_commit",
    "resync.after_slice",
    "resync.before_delete",
)

STORE: Final = ("customers.before_commit", "customers.after_commit")
"""In whatever process a clerk's own change is written."""


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
