"""README.md is run: what it tells a reader to write and type is written and typed, in an empty directory, in order."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tenten import local
from tests.acceptance.cli import ROOT, SECONDS_MAX, wait_until

NOT_RUN: Final = {
    "make demo": "it plays for two minutes, on servers of its own, and checks itself",
    "make test": "it is what runs this test",
    "pip install '.[local]'": "it is installed already, from the checkout",
}
"""The only commands that are left out, and why."""

READY: Final = {
    "tenten up": "event=partitions_assigned",
    "tenten headquarters run": "event=partitions_assigned",
    "tenten transactions run": "event=partitions_assigned",
    "tenten channel run houston": "",
}
"""Commands that do not come back: each goes on beside those that follow, once it has said this."""

SERVERS_OF_ONES_OWN: Final = "tenten topics apply"
"""The first of the commands for a reader with a broker and a database, which he has put into the environment."""

_SET_BY_THE_PAGE: Final = ("KAFKA_", "SCHEMA_REGISTRY_", "TENTEN_")
_FENCE: Final = "```"
_INDENT: Final = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code; the indented ones name no language, and are commands."""

    language: str
    lines: list[str]

    @property
    def text(self) -> str:
        """The block as it would be in a file."""
        return "\n".join(self.lines) + "\n"

    @property
    def commands(self) -> list[str]:
        """The commands, without prompts and comments."""
        bare = (re.sub(r"\s+#\s.*", "", line).removeprefix("$ ").strip() for line in self.lines)
        return [line for line in bare if line]


def blocks_of(markdown: str) -> list[Block]:
    """The blocks of code of a page, in order."""
    found: list[Block] = []
    fenced: Block | None = None
    indented: Block | None = None
    for line in markdown.splitlines():
        if line.startswith(_FENCE):
            if fenced is None:
                fenced = Block(language=line.removeprefix(_FENCE).strip(), lines=[])
                found.append(fenced)
            else:
                fenced = None
        elif fenced is not None:
            fenced.lines.append(line)
        elif line.startswith(_INDENT):
            if indented is None:
                indented = Block(language="", lines=[])
                found.append(indented)
            indented.lines.append(line.removeprefix(_INDENT))
        if not line.startswith(_INDENT):
            indented = None
    assert fenced is None, "a block of code has no end"
    return found


class Reader:
    """Somebody with an empty directory, a terminal, and the examples of the checkout."""

    def __init__(self, directory: Path, ends: ExitStack) -> None:
        programs = directory / "bin"
        self.directory = directory / "work"
        for one in (programs, self.directory):
            one.mkdir()
        shutil.copytree(ROOT / "examples", self.directory / "examples")
        tenten = programs / "tenten"
        tenten.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m tenten.cli "$@"\n')
        tenten.chmod(0o755)
        self.environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        self._ends = ends
        self._running = ExitStack()
        ends.callback(local.stop, self.directory / ".tenten")
        ends.push(self._running)

    def take(self, block: Block) -> None:
        """Do what a block says. Fails when it does not do what it promises."""
        match block.language:
            case "toml":
                (self.directory / "tenten.toml").write_text(block.text)
            case "python":
                self._run_python(block)
            case _:
                for command in block.commands:
                    self._type(command)

    def wait_for_numbers(self, channel: str, name: str) -> None:
        """Wait until everybody of this name has an account number there."""
        command = f"tenten customer search {channel} {name} --json"
        wait_until(
            lambda: {one["status"] for one in json.loads(self._shell(command).stdout)} == {"synchronized"},
            f"account numbers for {name}",
        )

    def _run_python(self, block: Block) -> None:
        """Run the block; where a comment beside a print says what it prints, that is what it must print."""
        printed = self._shell(f'"{sys.executable}" -c "$PROGRAM"', PROGRAM=block.text).stdout
        promised = [line.partition("#")[2].strip() for line in block.lines if "print(" in line]
        assert printed.splitlines() == promised

    def _type(self, command: str) -> None:
        if command in NOT_RUN:
            return
        if command == SERVERS_OF_ONES_OWN:
            self._running.close()
            self._name_servers()
        if command in READY:
            self._start(command)
            return
        said = self._shell(command)
        if " search " in command:
            # A clerk would look again, too: the customer is on its way.
            name = command.rsplit(maxsplit=1)[-1]
            wait_until(lambda: name in self._shell(command).stdout.lower(), f"{name} in the answer of {command}")
        if " --sync " in command:
            assert "C-" in said.stdout, f"{command} gives no account number: {said.stdout}"

    def _start(self, command: str) -> None:
        """Start a command in the background and wait until it works. At the end it is to leave without complaint."""
        log = self.directory / f"{command.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self.directory,
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

        def leave() -> None:
            process.terminate()
            try:
                assert process.wait(SECONDS_MAX) == 0, f"{command} ended badly:\n{log.read_text()}"
            finally:
                process.kill()
                process.wait()

        self._running.callback(leave)

        def works() -> bool:
            assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
            return READY[command] in log.read_text()

        wait_until(works, f"{READY[command]} from {command}")

    def _shell(self, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self._variables() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def _name_servers(self) -> None:
        """Put the servers that `tenten up` has left running into the environment, as servers of one's own."""
        services = local.status(self.directory / ".tenten")
        assert services is not None, "the local servers are to go on when `tenten up` ends"
        self.environment["KAFKA_BOOTSTRAP_SERVERS"] = services.bootstrap_servers
        self.environment["TENTEN_HEADQUARTERS_URL"] = local.database_url(services, "headquarters")

    def _variables(self) -> dict[str, str]:
        """The environment of a reader who has set nothing but what the page tells him."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(_SET_BY_THE_PAGE)}
        return {**ours, "PYTHONPATH": str(ROOT), **self.environment}


@pytest.fixture
def blocks() -> list[Block]:
    """The blocks of code of the README."""
    return blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader; whatever he has left running is ended."""
    with ExitStack() as ends:
        yield Reader(tmp_path, ends)


def test_readme_does_what_it_says(blocks: list[Block], reader: Reader) -> None:
    """Every file is written, every command typed and every program run, in the order of the page, and all succeed; in
    the end every customer that was made on the way has its number.
    """
    for block in blocks:
        reader.take(block)
    reader.wait_for_numbers("houston", "lovelace")


def test_readme_has_what_is_left_out(blocks: list[Block]) -> None:
    """The exceptions of the test above are commands of the page, so none of them outlives its reason."""
    typed = {command for block in blocks if not block.language for command in block.commands}
    assert typed >= NOT_RUN.keys() | READY.keys() | {SERVERS_OF_ONES_OWN}
    assert {block.language for block in blocks} == {"", "toml", "python"}
