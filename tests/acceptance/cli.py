"""The real command line in a directory of its own: most commands run in this process, which saves a second for each.

What runs on, what is given an environment of its own, and `run_process` are processes of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from threading import RLock
from typing import Any, Final

import pytest
import structlog

from tenten.cli.main import main
from tests.forked import ForkedProcess, ended_with_block, fork

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 300.0

_ELSEWHERE = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "SCHEMA_REGISTRY_URL",
    "TENTEN_CONFIG",
    "TENTEN_FAILPOINT",
    "TENTEN_HEADQUARTERS_URL",
    "TENTEN_OPERATOR",
)
"""What would lead the commands of a test to other servers."""

LEGAL_ENTITY = """
[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = { format = "C-########", next = 1, continuous = true }
"""

HOUSTON = """
[channels.houston]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///houston.db"
"""

SEATTLE = """
[channels.seattle]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///seattle.db"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as the one JSON document it must be."""
        return json.loads(self.out)


@dataclass(slots=True, kw_only=True)
class Tenten:
    """`tenten` in a directory with its `tenten.toml`."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str, **environment: str) -> Ended:
        """Run a command to its end."""
        if environment or self.environment or _RUNNING.intersection(words[:2]):
            return self.run_process(*words, **environment)
        return _run_here(words, self.directory)

    def run_process(self, *words: str, **environment: str) -> Ended:
        """Run a command to its end, as a process of its own."""
        done = subprocess.run(
            _command(words),
            cwd=self.directory,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())

    def ok(self, *words: str) -> Ended:
        """Run a command that must succeed."""
        ended = self.run(*words)
        assert ended.code == 0, (words, ended)
        return ended

    @contextmanager
    def running(self, *words: str, **environment: str) -> Iterator[ForkedProcess]:
        """A command that runs on; what it prints is appended to `processes.log`. Killed at the end if it still runs."""
        log = self.directory / "processes.log"
        started = fork(words, directory=self.directory, log=log, environment=self._environment(environment))
        with ended_with_block(started) as process:
            yield process

    @property
    def log(self) -> str:
        """What the running commands have printed."""
        return (self.directory / "processes.log").read_text()

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        return {**own, "PYTHONPATH": str(ROOT), **self.environment, **more}


_RUNNING: Final = frozenset({"up", "demo", "run", "relay", "settle", "distribute"})
"""Commands that run until a signal."""

_here: Final = RLock()


def _run_here(words: tuple[str, ...], directory: Path) -> Ended:
    """Run a command in this process, with its streams, directory and environment as a process would have them."""
    out, err = (TextIOWrapper(BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with _here, pytest.MonkeyPatch.context() as patched, Path(os.devnull).open() as nothing:
        patched.chdir(directory)
        for name in _ELSEWHERE:
            patched.delenv(name, raising=False)
        patched.setattr(sys, "argv", ["tenten", *words])
        for name, stream in (("stdin", nothing), ("stdout", out), ("stderr", err)):
            patched.setattr(sys, name, stream)
        code = _exit_code()
    structlog.reset_defaults()
    return Ended(code=code, out=_text(out), err=_text(err))


def _exit_code() -> int:
    try:
        main()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except Exception:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
        return 1


def _text(stream: TextIOWrapper) -> str:
    stream.flush()
    written = stream.buffer
    assert isinstance(written, BytesIO)
    return written.getvalue().decode()


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-P", "-m", "tenten.cli", *words]


def end(process: ForkedProcess) -> int:
    """Ask a process to end, and wait for its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(SECONDS_MAX)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.1)
