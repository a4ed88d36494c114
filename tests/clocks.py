"""Computers whose clocks are wrong, and are set while programs run.

Processes of `tenten` see the clock through time-machine: Kafka's client waits with functions of the C library that
libfaketime does not replace, and would never rest. PostgreSQL's server sees it through libfaketime. Clocks that only
measure durations are right.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.forked import ForkedProcess, fork_program
from tests.services import directory_for_server

_SYSTEM: Final = Path("/usr/lib")

_WITH_CLOCK: Final = """
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import time_machine

clock = Path(sys.argv.pop(1))
traveller = time_machine.travel(datetime.now(UTC), tick=True).start()
ahead = 0

def set_clock():
    global ahead
    seconds = int(clock.read_text().strip().rstrip("s"))
    traveller.shift(seconds - ahead)
    ahead = seconds

def follow():
    while True:
        set_clock()
        time.sleep(0.2)

set_clock()
Thread(target=follow, daemon=True).start()

from tenten.cli.main import main

main()
"""


class Computer:
    """A computer with a clock of its own."""

    def __init__(self, directory: Path) -> None:
        self._clock = directory / "clock"
        self.set_clock(0)

    def set_clock(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead; behind if negative. Programs see it within a second."""
        new = self._clock.with_name("clock.new")
        # In the form of libfaketime.
        new.write_text(f"{seconds:+d}s\n")
        # A server of another user reads it, too.
        new.chmod(0o644)
        new.replace(self._clock)

    def start(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> ForkedProcess:
        """Start `tenten` with these words. Its output is appended to `log`."""
        words = (str(self._clock), *words)
        return fork_program(_WITH_CLOCK, *words, directory=log.parent, log=log, environment=environment)

    @contextmanager
    def for_servers(self) -> Iterator[None]:
        """Servers that are started in the block have this clock."""
        library = self._clock.with_name("libfaketime.so.1")
        shutil.copyfile(_library(), library)
        library.chmod(0o644)
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("LD_PRELOAD", str(library))
            patched.setenv("FAKETIME_TIMESTAMP_FILE", str(self._clock))
            patched.setenv("FAKETIME_CACHE_DURATION", "1")
            patched.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            yield


@contextmanager
def computer() -> Iterator[Computer]:
    """A computer; its clock is right at first."""
    with directory_for_server("clock") as directory:
        yield Computer(directory)


def _library() -> Path:
    """The library of libfaketime: of the wheel, or of the system. Fails where there is none."""
    package = find_spec("libfaketime")
    locations = (package.submodule_search_locations or []) if package is not None else []
    found = [
        *(path for location in locations for path in Path(location).rglob("libfaketime.so.1")),
        *_SYSTEM.glob("*/faketime/libfaketime.so.1"),
    ]
    assert found, "libfaketime is not installed: install the extra `test`, or the package `faketime` of the system"
    return found[0]
