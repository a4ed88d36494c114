"""Processes in the background that outlive the one that started them.

A process is named by its pid and a marker, a text that its command line contains and no other process's does (the path
of its own directory). A pid that the system has since given to another program is therefore never taken for ours, and
never ended.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Starts the command as its own grandchild and leaves at once: the caller has no child to reap, and a Ctrl-C in the
# caller's terminal reaches nobody but the caller.
_LAUNCHER = """
import subprocess, sys
with open(sys.argv[1], "ab") as log:
    print(subprocess.Popen(
        sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    ).pid)
"""
_CHECK_EVERY_SECONDS = 0.05
_APPEARS_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundProcess:
    """One process that was started here, perhaps by an earlier run of the program."""

    pid: int
    marker: str


def launch(command: Sequence[str], directory: Path, log: Path, marker: str) -> BackgroundProcess:
    """Start a command in the background, in its own session, its output appended to a log.

    It is running when this returns, but has not said that it is ready.
    """
    arguments = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(log), *command]
    launched = subprocess.run(arguments, cwd=directory, check=True, capture_output=True, text=True)
    process = BackgroundProcess(pid=int(launched.stdout), marker=marker)
    # For a moment after it began a process has no command line yet, and would look as if it had ended.
    deadline = time.monotonic() + _APPEARS_SECONDS_MAX
    while not is_running(process) and exists(process.pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    return process


def is_running(process: BackgroundProcess) -> bool:
    """Whether the process lives and is still the one that was started; one that nobody has reaped counts as ended."""
    return process.marker in command_line(process.pid)


def exists(pid: int) -> bool:
    """Whether the system knows the pid, be it a zombie's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line(pid: int) -> str:
    """The command line of a process, blanks between its arguments; empty when there is none, or only a zombie."""
    procfs = Path("/proc")
    if (procfs / "self").exists():
        with suppress(OSError):
            return (procfs / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()


def end(process: BackgroundProcess, grace_seconds: float) -> bool:
    """End a process: ask it to (SIGTERM), and after the grace period force it (SIGKILL); return once it has gone.

    A process that was frozen (SIGSTOP) is thawed, so that it can hear the first. False when it was not running.
    """
    if not is_running(process):
        return False
    if grace_seconds > 0:
        _send(process, signal.SIGTERM)
        _send(process, signal.SIGCONT)
        _wait(process, grace_seconds)
    if is_running(process):
        _send(process, signal.SIGKILL)
        _wait(process, 10)
    return True


def _send(process: BackgroundProcess, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if is_running(process):
            os.kill(process.pid, number)


def _wait(process: BackgroundProcess, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(_CHECK_EVERY_SECONDS)
