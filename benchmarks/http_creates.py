"""W1: creates through the API for tills, against the same creates through the Python API.

A store's process serves one client, which waits for each answer; the client is another process, whose CPU does not
count. The store's broker is away. Both ways write the same customers to a SQLite database on disk.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measuring import Result, Scale
from benchmarks.servers import Servers
from benchmarks.starting import STORE_SETTINGS

CREATES_A_SECOND_MIN: Final = 180.0
MORE_CPU_MS_MAX: Final = 3.5

_RUNS: Final = 5
_START_SECONDS_MAX: Final = 60.0
_TENTEN: Final = (sys.executable, "-m", "tenten.cli")
_SERVER_SETTINGS: Final = """
[kafka]
"bootstrap.servers" = "127.0.0.1:1"

[http]
requests_per_second_max = 100000
"""

# Creates as many customers as each line of its input says, and answers with a line.
_PYTHON: Final = """
import sys
from tenten.producers import NewAddress, create_customer, open_channel
from tenten.settings import load_settings

with open_channel(load_settings(), "houston") as houston:
    for line in sys.stdin:
        for number in range(int(line)):
            create_customer(
                houston, first_name="Ada", last_name=f"Lovelace {number}", email=f"ada.{number}@example.com",
                phone="713 555 0100", address=NewAddress(street="1 Main St", city="Houston", state="TX"),
            )
        print(flush=True)
"""


def http_creates(_: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """W1: the time of a create on one core, and how much more CPU it takes than through the Python API."""
    assert bars == {"W1"}
    count = max(20, scale.rows // 100)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "tenten.toml").write_text(_SERVER_SETTINGS + STORE_SETTINGS, encoding="utf-8")
        upgrade = (*_TENTEN, "database", "upgrade", "channel", "houston")
        subprocess.run(upgrade, cwd=directory, env=_env(), check=True, capture_output=True)
        with _served(directory) as (store, client), _python(directory) as till:
            client.create(count)
            _create_in_python(till, count)
            milliseconds, of_http, of_python = list[float](), list[float](), list[float]()
            for _run in range(_RUNS):
                began_at, used = time.perf_counter(), _cpu_seconds(store)
                client.create(count)
                milliseconds.append((time.perf_counter() - began_at) * 1000 / count)
                of_http.append((_cpu_seconds(store) - used) * 1000 / count)
                used = _cpu_seconds(till.pid, store)
                _create_in_python(till, count)
                of_python.append((_cpu_seconds(till.pid, store) - used) * 1000 / count)
    settings: dict[str, Any] = {"creates": count, "database": "sqlite", "cores of the store": 1, "clients": 1}
    yield Result(
        bar="W1",
        what="create through HTTP, one client, one core, until the answer",
        unit="ms",
        subject=milliseconds,
        at_most=round(1000 / CREATES_A_SECOND_MIN, 3),
        settings=settings,
    )
    python = sorted(of_python)[_RUNS // 2]
    yield Result(
        bar="W1",
        what="CPU of a create through HTTP beyond one through Python",
        against="the Python API",
        unit="ms",
        subject=[spent - python for spent in of_http],
        limit=of_python,
        at_most=MORE_CPU_MS_MAX,
        settings=settings,
    )


class _Client:
    """A till that keeps its connection open."""

    def __init__(self, address: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(address)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def create(self, count: int) -> None:
        """Create this many customers, one after the other."""
        for number in range(count):
            customer = {
                "first_name": "Ada",
                "last_name": f"Lovelace {number}",
                "email": f"ada.{number}@example.com",
                "phone": "713 555 0100",
                "address": {"street": "1 Main St", "city": "Houston", "state": "TX"},
            }
            self._connection.request("POST", "/v1/customers", json.dumps(customer), self._headers)
            answer = self._connection.getresponse()
            answer.read()
            assert answer.status == 202, answer.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def _served(directory: Path) -> Iterator[tuple[int, _Client]]:
    """A store on one core: its process id, and a client."""
    log = directory / "store.log"
    command = (*_TENTEN, "channel", "run", "houston", "--http", "127.0.0.1:0")
    with log.open("wb") as output, subprocess.Popen(command, cwd=directory, env=_env(), stderr=output) as store:
        try:
            psutil.Process(store.pid).cpu_affinity([0])
            deadline = time.monotonic() + _START_SECONDS_MAX
            while (found := re.search(r"http_started.* address=(\S+)", log.read_text(errors="replace"))) is None:
                assert time.monotonic() < deadline, "the store does not start"
                time.sleep(0.05)
            token = (directory / "api.token").read_text("ascii").strip()
            with closing(_Client(found[1], token)) as client:
                yield store.pid, client
        finally:
            store.terminate()


@contextmanager
def _python(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A till that uses the Python API."""
    command = (sys.executable, "-c", _PYTHON)
    with subprocess.Popen(command, cwd=directory, env=_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as till:
        try:
            yield till
        finally:
            assert till.stdin is not None
            till.stdin.close()


def _create_in_python(till: "subprocess.Popen[bytes]", count: int) -> None:
    assert till.stdin is not None
    assert till.stdout is not None
    till.stdin.write(f"{count}\n".encode())
    till.stdin.flush()
    assert till.stdout.readline() == b"\n"


def _cpu_seconds(*pids: int) -> float:
    """CPU of these processes up to now, user and system."""
    used = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(times.user + times.system for times in used)


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
