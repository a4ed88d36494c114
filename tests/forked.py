"""Processes of the product that start in milliseconds: forked from a process that has imported everything.

    with forked("headquarters", "run", directory=here, log=here / "log", TENTEN_FAILPOINT="...") as process:
        process.wait(60)

They are ordinary processes with pid, signals and exit code, without the second that imports take. Their parent process
(this file, run as a program) has no threads and no connections; it reads a request per line and answers each with a
line of JSON.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]

_DEADLINE_SECONDS: Final = 180.0
_POLL_SECONDS: Final = 0.01
_EXIT_SECONDS: Final = 10.0


class ForkedProcess:
    """One process; the methods are those of `subprocess.Popen`."""

    def __init__(self, pid: int, server: "ForkServer") -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """The exit code, or the negative number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})["code"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises: `subprocess.TimeoutExpired`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def fork(
    words: Sequence[str], *, directory: Path, log: Path, environment: Mapping[str, str], errors: Path | None = None
) -> ForkedProcess:
    """Start `tenten` with these words. Its output is appended to `log`, that of stderr to `errors` if given."""
    return _server().start({"words": list(words), "errors": str(errors or log)}, directory, log, environment)


def fork_program(
    code: str, *arguments: str, directory: Path, log: Path, environment: Mapping[str, str]
) -> ForkedProcess:
    """Start a Python program, with the arguments in `sys.argv[1:]`."""
    return _server().start({"code": code, "words": list(arguments)}, directory, log, environment)


def run_to_failpoint(code: str, point: str, directory: Path) -> None:
    """Run a Python program that must kill itself at this failpoint; fail if it ends otherwise."""
    environment = {**os.environ, "TENTEN_FAILPOINT": point}
    # The program's settings file names the broker.
    environment.pop("KAFKA_BOOTSTRAP_SERVERS", None)
    log = directory / "killed.log"
    with ended_with_block(fork_program(code, directory=directory, log=log, environment=environment)) as process:
        assert process.wait(_DEADLINE_SECONDS) == -signal.SIGKILL, f"did not reach {point}: {log.read_text()}"


@contextmanager
def ended_with_block(process: ForkedProcess) -> Iterator[ForkedProcess]:
    """The process during the block; killed at its end if it still runs."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(_EXIT_SECONDS)


class ForkServer:
    """The process that forks, seen from the tests: a program that imports what it wants and calls `serve`."""

    def __init__(self, program: Sequence[str], *, directory: Path, python_path: Path) -> None:
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, *program],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(python_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self.end)

    def start(
        self, request: dict[str, Any], directory: Path, log: Path, environment: Mapping[str, str]
    ) -> ForkedProcess:
        """Start a process: `words` of the command line, or `code` with `words` as its arguments."""
        # Exists as soon as the process does.
        log.touch()
        about = {"directory": str(directory), "log": str(log), "environment": dict(environment)}
        return ForkedProcess(self.ask({**request, **about})["pid"], self)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer. From one thread at a time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


_servers: list[ForkServer] = []
_servers_lock: Final = Lock()


def _server() -> ForkServer:
    """The server of this test process, started with its first request."""
    with _servers_lock:
        if not _servers:
            _servers.append(ForkServer(["-m", "tests.forked"], directory=ROOT, python_path=ROOT))
        return _servers[0]


def serve() -> None:
    """Answer requests until the input ends."""
    codes: dict[int, int | None] = {}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "poll" in request:
            answer = {"code": _code(request["poll"], codes)}
        else:
            pid = os.fork()
            if pid == 0:
                _become(request)
            codes[pid] = None
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _code(pid: int, codes: dict[int, int | None]) -> int | None:
    """The exit code of a child, None while it runs."""
    if codes[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes[pid]


def _become(request: Mapping[str, Any]) -> None:
    """Be the process that was asked for. Never returns."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        log, errors = (
            os.open(request.get(name, request["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            for name in ("log", "errors")
        )
        for number, target in ((0, nothing), (1, log), (2, errors)):
            os.dup2(target, number)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["tenten", *request["words"]]
        if "code" in request:
            exec(request["code"], {"__name__": "__main__"})  # noqa: S102 - the tests' own programs
            code = 0
        else:
            from tenten.cli.main import main

            main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import_everything() -> None:
    """Import what the product's processes import, also lazily, and start nothing."""
    import alembic.command  # noqa: F401
    import psycopg  # noqa: F401

    import benchmarks.customers  # noqa: F401
    import tenten.cli.main
    import tenten.consumers.channel.distribution.run
    import tenten.consumers.channel.loop
    import tenten.consumers.channel.settlement.run
    import tenten.consumers.headquarters.customers.run
    import tenten.consumers.headquarters.transactions.run
    import tenten.failure_messages
    import tenten.producers.relay.run
    import tenten.supervisor  # noqa: F401

    # The children's garbage collector need not look at all of this, nor copy its pages.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import_everything()
    serve()
