"""Keep processes of this program running: start them, restart those that die, and let them drain at the end.

A process that ends because its settings are wrong is not restarted: it would end again, for ever.

A process whose supervisor was killed ends within a second or two, because it knows its parent's id.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Final

from structlog import get_logger

from tenten.runtime.failpoints import VARIABLE

log = get_logger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""When a process dies after running for this long, its pause is reset."""

DRAIN_SECONDS_MAX: Final = 70.0
"""How long the processes may take to end before they are killed; longer than any of them needs."""

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command of this program that runs until SIGTERM."""

    name: str
    arguments: tuple[str, ...]
    failpoints: tuple[str, ...]
    """Only these are passed on to it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of this process."""


@dataclass(slots=True, kw_only=True)
class _Child:
    """A program and its process, when there is one."""

    program: Program
    started: Path
    """The process creates this file when it has started."""
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    starts: int = 0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    start_at: float = field(default_factory=time.monotonic)
    is_given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """Functions that are called while the programs run; they must not block."""

    started: Callable[[], None]
    """Once, when every program has reported that it has started."""
    given_up: Callable[[str], None]
    """With the name of a program that is not restarted."""


def supervise(programs: Sequence[Program], stop: Event, notices: Notices, *, final_code: int) -> bool:
    """Keep the programs running until `stop` is set; then SIGTERM, and wait for them to end.

    A program that ends with `final_code` is not restarted. False if that has happened to every program.
    """
    with TemporaryDirectory(prefix="tenten-up-") as directory:
        children = [
            _Child(program=program, started=Path(directory, str(number))) for number, program in enumerate(programs)
        ]
        starting = True
        try:
            while not stop.is_set():
                for child in children:
                    if not child.is_given_up:
                        _look_after(child, notices, final_code)
                if children and all(child.is_given_up for child in children):
                    return False
                if starting and all(child.started.exists() for child in children):
                    starting = False
                    notices.started()
                stop.wait(_LOOK_SECONDS)
            return True
        finally:
            _end(children)


def _look_after(child: _Child, notices: Notices, final_code: int) -> None:
    """Start the process at its time; if it has died, set the time of its next start."""
    now = time.monotonic()
    if child.process is None:
        if now >= child.start_at:
            _start(child)
        return
    code = child.process.poll()
    if code is None:
        return
    child.process = None
    if code == final_code:
        child.is_given_up = True
        log.error("process_given_up", process=child.program.name, code=code)
        notices.given_up(child.program.name)
        return
    if now - child.started_at >= STEADY_SECONDS:
        child.pause_seconds = FIRST_PAUSE_SECONDS
    child.start_at = now + child.pause_seconds
    log.warning("process_died", process=child.program.name, code=code, again_in_seconds=child.pause_seconds)
    child.pause_seconds = min(2 * child.pause_seconds, PAUSE_SECONDS_MAX)


def _start(child: _Child) -> None:
    # -P: packages in the working directory must not shadow ours.
    ours = ("--ends-with", str(os.getpid()), "--started", str(child.started))
    command = [sys.executable, "-P", "-m", "tenten.cli", *child.program.arguments, *ours]
    child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=_environment(child))
    child.started_at = time.monotonic()
    child.starts += 1
    log.info("process_started", process=child.program.name, pid=child.process.pid)


def _environment(child: _Child) -> dict[str, str]:
    """This process's environment; a failpoint only for the process that passes it, and only at its first start."""
    environment = {**os.environ, **child.program.environment}
    point = environment.get(VARIABLE, "").partition("@")[0]
    if point not in child.program.failpoints or child.starts > 0:
        environment.pop(VARIABLE, None)
    ours = str(Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, environment.get("PYTHONPATH"))))
    return environment


def _end(children: Sequence[_Child]) -> None:
    """Let every process drain; kill those that do not end in time."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    log.info("processes_ended", processes=len(running))
