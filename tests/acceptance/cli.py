"""The real command line as a subprocess, in a directory of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 90.0

_ELSEWHERE = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "SCHEMA_REGISTRY_URL",
    "TENTEN_CONFIG",
    "TENTEN_FAILPOINT",
    "TENTEN_HEADQUARTERS_URL",
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
    def running(self, *words: str, **environment: str) -> "Iterator[subprocess.Popen[bytes]]":
        """A command that runs on; what it prints is appended to `processes.log`. Killed at the end if it still runs."""
        with (self.directory / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                _command(words),
                cwd=self.directory,
                env=self._environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    @property
    def log(self) -> str:
        """What the running commands have printed."""
        return (self.directory / "processes.log").read_text()

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        return {**own, "PYTHONPATH": str(ROOT), **self.environment, **more}


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-P", "-m", "operations.cli", *words]


def end(process: "subprocess.Popen[bytes]") -> int:
    """Ask a process to end, and wait for its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(SECONDS_MAX)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.1)
