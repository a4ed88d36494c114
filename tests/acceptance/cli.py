"""The real command line in a test's directory. Most commands run in the test process, which saves a second for each.

Workers, commands with environment variables and `run_process` are separate processes.
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
from tempfile import TemporaryDirectory
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
    "TENTEN_KAFKA",
    "TENTEN_OPERATOR",
)
"""Variables that could point the commands of a test to other servers."""

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
        """Its output, which must be one JSON document."""
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
        """Run a command to its end as a separate process."""
        with TemporaryDirectory() as outputs:
            out, err = (Path(outputs) / name for name in ("out", "err"))
            variables = self.environment_with(environment)
            started = fork(words, directory=self.directory, log=out, errors=err, environment=variables)
            with ended_with_block(started) as process:
                code = process.wait(SECONDS_MAX)
            return Ended(code=code, out=out.read_text("utf-8"), err=err.read_text("utf-8"))

    def run_interpreter(self, *words: str, **environment: str) -> Ended:
        """Run a command to its end in an interpreter of its own, as from a shell."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tenten.cli", *words],
            cwd=self.directory,
            env=self.environment_with(environment),
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
        """Run a command during the block, with its output appended to `processes.log`; kill it if it still runs."""
        log = self.directory / "processes.log"
        started = fork(words, directory=self.directory, log=log, environment=self.environment_with(environment))
        with ended_with_block(started) as process:
            yield process

    @property
    def log(self) -> str:
        """The output of the running commands."""
        return (self.directory / "processes.log").read_text()

    def environment_with(self, more: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        return {**own, "PYTHONPATH": str(ROOT), **self.environment, **more}


_RUNNING: Final = frozenset({"up", "demo", "run", "relay", "settle", "distribute"})
"""Commands that run until a signal."""

_here: Final = RLock()


def _run_here(words: tuple[str, ...], directory: Path) -> Ended:
    """Run a command in this process with its own streams, directory and environment."""
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


def end(process: ForkedProcess) -> int:
    """Send SIGTERM; return the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(SECONDS_MAX)


def status_of_all(tenten: Tenten) -> Ended:
    """`tenten status --json`, repeated where a busy machine has kept the servers from answering in time."""
    found: list[Ended] = []

    def is_complete() -> bool:
        found[:] = [tenten.run("status", "--json")]
        return not {"slow", "no_answer"} & {problem["code"] for problem in found[0].json["problems"]}

    wait_until(is_complete, "a status from every server")
    return found[0]


def wait_until(condition: Callable[[], bool], awaited: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"timeout while waiting for {awaited}"
        time.sleep(0.1)
