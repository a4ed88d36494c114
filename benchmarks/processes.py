"""Processes under measurement: `tenten`, started as by a user, the bare loop, and tills."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.stage import Stage

_ROOT: Final = Path(__file__).parent.parent
_STOP_SECONDS: Final = 20.0
_WAIT_SECONDS_MAX: Final = 300.0
_LOG_LINES: Final = 20


class BenchmarkFailed(Exception):
    """A process under measurement ended or made no progress; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running process and its log."""

    popen: "subprocess.Popen[bytes]"
    log: Path

    def memory_peak_bytes(self) -> int:
        """Its peak memory up to now; 0 where the system does not report it."""
        status = Path(f"/proc/{self.popen.pid}/status")
        if not status.exists():
            return 0
        peaks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(peaks[0].split()[1]) * 1024 if peaks else 0

    def wait(self) -> tuple[float, Any]:
        """Wait until it has ended: when it did (`time.perf_counter`), and what it used. Source: wait4(2).

        Raises: `BenchmarkFailed` if it failed.
        """
        _, status, usage = os.wait4(self.popen.pid, 0)
        ended_at = time.perf_counter()
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        if self.popen.returncode:
            raise BenchmarkFailed(f"a process ended with {self.popen.returncode}:\n{self.log_tail()}")
        return ended_at, usage

    def send(self, value: object) -> None:
        """Write a line of JSON to its stdin."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(value).encode() + b"\n")
        self.popen.stdin.flush()

    def receive(self) -> Any:
        """Wait for the next line of JSON from its stdout. Raises: `BenchmarkFailed` if it has ended."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"a process has ended:\n{self.log_tail()}")
        return json.loads(line)

    def end_input(self) -> None:
        """Close its stdin. Idempotent."""
        if self.popen.stdin is not None:
            self.popen.stdin.close()

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


@contextmanager
def tenten(stage: Stage, *arguments: str) -> Iterator[Process]:
    """Run `tenten` with these arguments and the stage's settings; SIGTERM at the end."""
    with started(stage, [sys.executable, "-m", "tenten.cli.main", *arguments]) as process:
        yield process


@contextmanager
def bare_loop(stage: Stage, source: str, target: str, group: str) -> Iterator[Process]:
    """Run the bare loop (`bare_loop.py`) from one topic to the other."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", stage.servers.bootstrap_servers, source, target, group]
    with started(stage, command) as process:
        yield process


@contextmanager
def started(stage: Stage, command: Sequence[str], *, converses: bool = False) -> Iterator[Process]:
    """Run a command with the stage's settings, its output in a log; one that converses has pipes instead."""
    log = stage.directory / f"{time.monotonic_ns()}.log"
    environment = {**os.environ, "TENTEN_CONFIG": str(stage.file), "PYTHONPATH": str(_ROOT)}
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            cwd=stage.directory,
            env=environment,
            stdin=subprocess.PIPE if converses else subprocess.DEVNULL,
            stdout=subprocess.PIPE if converses else output,
            stderr=output,
        )
    process = Process(popen=popen, log=log)
    try:
        yield process
    finally:
        process.end_input()
        stop(popen)
        if popen.stdout is not None:
            popen.stdout.close()


def stop(popen: "subprocess.Popen[bytes]") -> None:
    """End a process by SIGTERM, and by SIGKILL if it does not end. Idempotent."""
    if popen.poll() is None:
        popen.send_signal(signal.SIGTERM)
    try:
        popen.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def wait_until(condition: Callable[[], bool], processes: list[Process], pause_seconds: float = 0.025) -> float:
    """Wait for a condition; the time (`time.perf_counter`) at which it held.

    Raises: `BenchmarkFailed` if a process has ended, or after `_WAIT_SECONDS_MAX`.
    """
    deadline = time.monotonic() + _WAIT_SECONDS_MAX
    while not condition():
        for process in processes:
            if process.popen.poll() is not None:
                raise BenchmarkFailed(f"a process ended with {process.popen.returncode}:\n{process.log_tail()}")
        if time.monotonic() > deadline:
            logs = "\n".join(process.log_tail() for process in processes)
            raise BenchmarkFailed(f"no result within {_WAIT_SECONDS_MAX:.0f} s:\n{logs}")
        time.sleep(pause_seconds)
    return time.perf_counter()
