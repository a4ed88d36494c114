"""Processes in the background that outlive the one that started them.

A process is identified by its pid and a marker, a text that only its command line contains (the path of its directory).
So a pid that the system has since given to another program is never taken for ours, and never ended.
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
from typing import Final

# Starts the command as a grandchild of the caller and ends: the caller has no child to reap, and a Ctrl-C in the
# caller's terminal reaches the caller only.
_LAUNCHER = """
import os, subprocess, sys
os.umask(int(sys.argv[2]))
with open(sys.argv[1], "ab") as log:
    print(subprocess.Popen(
        sys.argv[3:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    ).pid)
"""
PRIVATE_UMASK: Final = 0o077
"""Files of background processes can be read by their owner only."""

_CHECK_EVERY_SECONDS = 0.05
_APPEARS_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundProcess:
    """One process that was started here, perhaps by an earlier run of the program."""

    pid: int
    marker: str


def launch(command: Sequence[str], directory: Path, log: Path, marker: str) -> BackgroundProcess:
    """Start a command in the background, in its own session, its output appended to a log.

    The process is running when this returns, but may not be ready.
    """
    arguments = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(log), str(PRIVATE_UMASK), *command]
    launched = subprocess.run(arguments, cwd=directory, check=True, capture_output=True, text=True)
    process = BackgroundProcess(pid=int(launched.stdout), marker=marker)
    # Just after its start a process has no command line, and would be taken for ended.
    deadline = time.monotonic() + _APPEARS_SECONDS_MAX
    while not is_running(process) and exists(process.pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    return process


def is_running(process: BackgroundProcess) -> bool:
    """Whether the process runs and is still the one that was started; a zombie counts as ended."""
    return process.marker in command_line(process.pid)


def exists(pid: int) -> bool:
    """Whether the system knows the pid, also of a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line(pid: int) -> str:
    """The command line of a process, its arguments separated by spaces; empty for a missing process or a zombie."""
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
    """End a process by SIGTERM, and by SIGKILL after the grace period; return when it has ended.

    A frozen process (SIGSTOP) is resumed, so that it can handle SIGTERM. False if it was not running.
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
