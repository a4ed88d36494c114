"""One process of the product that is started again whenever it has ended, with its ends and its memory."""

import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

import psutil

from tests.forked import ForkedProcess, fork, fork_program

PAUSE_SECONDS: Final = 0.5
"""Between an end and the next start, as with `tenten up`."""

_REFUSED: Final = 1
"""The exit code of a worker that refuses to go on."""

_LOG_TAIL_CHARACTERS: Final = 1_500
_KILLED_SECONDS: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Life:
    """The memory of one process from its start to its end: seconds since the start, and resident bytes."""

    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Its age at the last sample."""
        return self.samples[-1][0] if self.samples else 0.0


@dataclass(slots=True, kw_only=True)
class Program:
    """A process of the product. `look_after` is called again and again, from one thread; the rest from any."""

    name: str
    words: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    code: str | None = None
    """A Python program that is run with the words instead of `tenten`."""
    is_spared: bool = False
    """Never killed, so that its memory can be watched; it is frozen as the others are."""
    is_wanted: bool = True
    may_refuse: tuple[str, ...] = ()
    """During an accident it may end with a message that names one of these commands."""
    ends: list[str] = field(default_factory=list)
    """Every end that was neither a kill nor an allowed refusal: there must be none."""
    kills: int = 0
    refusals: int = 0
    lives: list[Life] = field(default_factory=list)
    _process: ForkedProcess | None = None
    _started_at: float = 0.0
    _start_at: float = 0.0
    _is_killed: bool = False
    _logged_before: int = 0
    """The bytes that earlier processes have logged."""
    _lock: Lock = field(default_factory=Lock)

    @property
    def log(self) -> Path:
        """The file that all its processes write to."""
        return self.directory / f"{self.name}.log"

    def look_after(self) -> None:
        """Start it, if it does not run and is wanted; note how it has ended."""
        with self._lock:
            if self._process is not None:
                code = self._process.poll()
                if code is not None:
                    self._note_end(code)
            elif self.is_wanted and time.monotonic() >= self._start_at:
                self._start()

    def kill(self) -> None:
        """Send SIGKILL, unless it does not run."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._is_killed = True
                self.kills += 1
                self._process.kill()

    def freeze(self) -> ForkedProcess | None:
        """Send SIGSTOP; the frozen process, or None if it does not run."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGSTOP)
            return self._process

    def thaw(self) -> None:
        """Send SIGCONT."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Send SIGTERM. It is not started again."""
        with self._lock:
            self.is_wanted = False
            if self._process is not None:
                self._process.terminate()

    def wait_for_end(self, deadline: float) -> int:
        """The exit code after `terminate`; 0 if it did not run. At this time of the monotonic clock it is killed."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(_KILLED_SECONDS)

    def is_running(self) -> bool:
        """Whether it has a process that has not ended."""
        with self._lock:
            return self._process is not None and self._process.poll() is None

    def sample_memory(self) -> None:
        """Add a sample to the current life."""
        with self._lock:
            if self._process is None or self._process.returncode is not None:
                return
            try:
                resident = psutil.Process(self._process.pid).memory_info().rss
            except psutil.NoSuchProcess:
                return
            self.lives[-1].samples.append((time.monotonic() - self._started_at, resident))

    def _start(self) -> None:
        environment = dict(self.environment)
        self._logged_before = self.log.stat().st_size if self.log.exists() else 0
        if self.code is None:
            self._process = fork(self.words, directory=self.directory, log=self.log, environment=environment)
        else:
            self._process = fork_program(
                self.code, *self.words, directory=self.directory, log=self.log, environment=environment
            )
        self._started_at = time.monotonic()
        self._is_killed = False
        self.lives.append(Life())

    def _note_end(self, code: int) -> None:
        self._process = None
        self._start_at = time.monotonic() + PAUSE_SECONDS
        if self._is_killed and code == -signal.SIGKILL:
            return
        own = self.log.read_bytes()[self._logged_before :]
        tail = own.decode(errors="replace")[-_LOG_TAIL_CHARACTERS:]
        if code == _REFUSED and any(command in tail for command in self.may_refuse):
            self.refusals += 1
            return
        self.ends.append(f"{self.name} ended with {code}: {tail}")
