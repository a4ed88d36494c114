"""Release 0.1.0 as a store and headquarters run it: its wheel, unpacked beside nothing of this checkout.

    old = Released(directory=here)
    old.ok("topics", "apply")
    with old.running("headquarters", "run") as process:
        process.kill()

The wheel is in `releases/`; `python -m tests.upgrade.build_wheel` has built it from the release's commit.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from tests import forked
from tests.databases import directory_of_run
from tests.forked import ForkedProcess, ForkServer, ended_with_block
from tests.upgrade.build_wheel import RELEASES, sha256

COMMIT: Final = "a0fe531eb05c21e0f62f524551b9a4337ac44b13"
WHEEL: Final = RELEASES / "tenten-0.1.0-py3-none-any.whl"
SHA256: Final = "eb7431522251a4621c4900a1995585659fa96190cc9c21b70e88fdeb052acd22"

_SECONDS: Final = 120.0
_OURS: Final = ("KAFKA_", "SCHEMA_REGISTRY_", "TENTEN_", "PYTHON")
"""Environment variables that would lead the release elsewhere."""

_COMMAND: Final = """
import os
os.dup2(os.open("commands.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
from operations.cli.main import main
main()
"""
"""A command, whose output is data only: everything else goes to a file."""

_PROCESS: Final = "from operations.cli.main import main\nmain()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """`tenten` of release 0.1.0 in a directory with its `tenten.toml`."""

    directory: Path
    _numbers: Iterator[int] = field(default_factory=count)

    def ok(self, *words: str) -> Any:
        """Run a command that must succeed. Returns the JSON that it prints, if it does."""
        (output,) = self.together([words])
        return output

    def together(self, commands: Sequence[Sequence[str]]) -> list[Any]:
        """Run commands side by side, each of which must succeed; what they print, in their order."""
        started = [(words, *self._start(_COMMAND, words)) for words in commands]
        return [self._output(words, process, out) for words, process, out in started]

    def program(self, code: str, *arguments: str) -> None:
        """Run a program with the release on its path."""
        process, out = self._start(code, arguments)
        assert process.wait(_SECONDS) == 0, out.read_text()

    @contextmanager
    def running(self, *words: str, **environment: str) -> Iterator[ForkedProcess]:
        """A command that runs on; what it prints is appended to `released.log`. Killed at the end if it still runs."""
        log = self.directory / "released.log"
        request = {"code": _PROCESS, "words": list(words)}
        process = _server().start(request, self.directory, log, {**_environment(), **environment})
        with ended_with_block(process):
            yield process

    @property
    def log(self) -> str:
        """The output of the running commands."""
        return (self.directory / "released.log").read_text()

    def _start(self, code: str, words: Sequence[str]) -> tuple[ForkedProcess, Path]:
        out = self.directory / f"out-{next(self._numbers)}.json"
        request = {"code": code, "words": list(words)}
        return _server().start(request, self.directory, out, _environment()), out

    def _output(self, words: Sequence[str], process: ForkedProcess, out: Path) -> Any:
        code = process.wait(_SECONDS)
        assert code == 0, (words, code, out.read_text(), (self.directory / "commands.log").read_text()[-2000:])
        return json.loads(out.read_text()) if "--json" in words else None


@cache
def _server() -> ForkServer:
    """The process that forks those of the release; this test process has one."""
    program = ["-P", str(Path(__file__).with_name("serve_released.py")), str(Path(forked.__file__))]
    unpacked = _unpacked()
    return ForkServer(program, directory=unpacked, python_path=unpacked)


def _unpacked() -> Path:
    """The release's packages, unpacked once in a run of the tests."""
    directory = directory_of_run() / WHEEL.stem
    with FileLock(f"{directory}.lock"):
        if not directory.exists():
            assert sha256(WHEEL) == SHA256, f"{WHEEL} is not the wheel that was committed"
            zipfile.ZipFile(WHEEL).extractall(directory)
    return directory


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
