"""Failpoints, in a real process that really dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tenten import workers
from tenten.runtime import failpoints

_THREE_PASSES = """
from tenten.runtime.failpoints import failpoint
for number in (1, 2, 3):
    print(number, flush=True)
    failpoint("relay.after_ack")
    failpoint("relay.after_mark")
"""
_CHECK = """
from tenten.runtime.failpoints import check_failpoint
from tenten.workers import CHANNEL_FAILPOINTS
check_failpoint(CHANNEL_FAILPOINTS)
"""


def _run(program: str, variable: str | None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    if variable is not None:
        environment[failpoints.VARIABLE] = variable
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("variable", "printed"),
    [
        ("relay.after_ack", ["1"]),
        ("relay.after_mark@3", ["1", "2", "3"]),
    ],
)
def test_process_kills_itself_at_the_given_pass(variable: str, printed: Sequence[str]) -> None:
    """SIGKILL at exactly the point and the pass of the environment variable."""
    # when
    done = _run(_THREE_PASSES, variable)

    # then
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == list(printed)


@pytest.mark.parametrize("variable", [None, "relay.after_select", "relay.after_ack@4"])
def test_process_survives_other_points(variable: str | None) -> None:
    """Nothing happens without the variable, at other points, and before the given pass."""
    # when
    done = _run(_THREE_PASSES, variable)

    # then
    assert done.returncode == 0
    assert done.stdout.split() == ["1", "2", "3"]


def test_variable_is_read_at_the_first_pass_and_not_at_import() -> None:
    """A program may import the module first and set the variable afterwards."""
    # given
    program = (
        "import os, tenten.runtime.failpoints as f\n"
        "os.environ[f.VARIABLE] = 'relay.after_ack'\n"
        "f.failpoint('relay.after_ack')\n"
    )

    # when
    done = _run(program, None)

    # then
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("relay.after_akc", "choose one of relay.after_select, relay.after_produce"),
        ("relay.after_ack@0", "counted from 1"),
        ("relay.after_ack@two", "counted from 1"),
    ],
)
def test_unknown_point_is_refused_at_the_start(variable: str, advice: str) -> None:
    """A misspelt point would never be passed, so the process refuses to start."""
    # when
    done = _run(_CHECK, variable)

    # then
    assert done.returncode == 1
    assert "SettingsError" in done.stderr
    assert advice in done.stderr


def test_known_point_is_accepted_at_the_start() -> None:
    """A point of this process and an empty variable are accepted."""
    # when
    done = [_run(_CHECK, variable).returncode for variable in ("", "resync.after_slice@7")]

    # then
    assert done == [0, 0]


def test_failpoint_names_are_unique() -> None:
    """A name identifies the point at which the process dies."""
    # given
    names = [*(name for worker in workers.ALL for name in worker.failpoints), *workers.STORE_FAILPOINTS]

    # then
    assert len(set(names)) == len(names)
