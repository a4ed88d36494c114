"""README.md and the tutorial are executed: files are written and commands typed, in an empty directory, in order."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tenten import local
from tests.acceptance.cli import ROOT, SECONDS_MAX, wait_until

README: Final = "README.md"
TUTORIAL: Final = "docs/tutorial/first-customer.md"

NOT_RUN: Final = {
    "make demo": "it runs for two minutes, on servers of its own, and checks itself",
    "make test": "it runs this test",
    "pip install '.[local]'": "it is installed already, from the checkout",
}
"""The only commands that are left out, each with the reason."""

READY: Final = {
    "tenten up": "Ready.",
    "tenten headquarters run": "event=partitions_assigned",
    "tenten transactions run": "event=partitions_assigned",
    "tenten channel run houston": "",
}
"""Commands that run until they are stopped, with the text in their output that shows that they are ready."""

INTERRUPT: Final = "^C"
"""Stops the processes that run."""

OWN_SERVERS: Final = "tenten topics apply"
"""README: the first command for a reader who has named a broker and a database in the environment."""

_READS: Final = ("search", "show", "list", "status")
"""Verbs that may be repeated until the expected output appears: the event is on its way."""

_SET_BY_THE_PAGE: Final = ("KAFKA_", "SCHEMA_REGISTRY_", "TENTEN_")
_FENCE: Final = "```"
_INDENT: Final = "    "
_PROMPT: Final = "$ "
_ANYTHING: Final = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a page, and the lines of output that the page shows below it."""

    text: str
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code. Indented blocks have no language; they hold commands."""

    language: str
    lines: list[str]

    @property
    def text(self) -> str:
        """The content of the block, as a file would have it."""
        return "\n".join(self.lines) + "\n"

    @property
    def commands(self) -> list[Command]:
        """The commands, without prompts and comments. If any line has a prompt, lines without one are output."""
        lines = [re.sub(r"\s+#\s.*", "", line).rstrip() for line in self.lines]
        if not any(line.startswith(_PROMPT) for line in lines):
            return [Command(text=line.strip()) for line in lines if line.strip()]
        commands: list[Command] = []
        for line in filter(None, lines):
            if line.startswith(_PROMPT) or line == INTERRUPT:
                commands.append(Command(text=line.removeprefix(_PROMPT).strip()))
            else:
                commands[-1].output.append(line)
        return commands


def blocks_of(markdown: str) -> list[Block]:
    """The blocks of code of a page, in order."""
    blocks: list[Block] = []
    fenced: Block | None = None
    indented: Block | None = None
    for line in markdown.splitlines():
        if line.startswith(_FENCE):
            if fenced is None:
                fenced = Block(language=line.removeprefix(_FENCE).strip(), lines=[])
                blocks.append(fenced)
            else:
                fenced = None
        elif fenced is not None:
            fenced.lines.append(line)
        elif line.startswith(_INDENT):
            if indented is None:
                indented = Block(language="", lines=[])
                blocks.append(indented)
            indented.lines.append(line.removeprefix(_INDENT))
        if not line.startswith(_INDENT):
            indented = None
    assert fenced is None, "a block of code has no end"
    return blocks


class Reader:
    """A reader with an empty directory, a terminal, and the examples of the checkout."""

    def __init__(self, directory: Path, ends: ExitStack) -> None:
        programs = directory / "bin"
        self.directory = directory / "work"
        for folder in (programs, self.directory):
            folder.mkdir()
        shutil.copytree(ROOT / "examples", self.directory / "examples")
        tenten = programs / "tenten"
        tenten.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m tenten.cli "$@"\n')
        tenten.chmod(0o755)
        self.environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        self._starts = count(1)
        self._running = ExitStack()
        ends.callback(local.delete, self.directory / ".tenten")
        ends.push(self._running)

    def follow(self, block: Block) -> None:
        """Do what a block says. Fails if the result differs from the page."""
        match block.language:
            case "toml":
                with (self.directory / "tenten.toml").open("a") as settings:
                    settings.write(f"{block.text}\n")
            case "python":
                self._run_python(block)
            case _:
                for command in block.commands:
                    self._type(command)

    def wait_for_numbers(self, channel: str, name: str) -> None:
        """Wait until every customer of this name has an account number in the channel."""
        command = f"tenten customer search {channel} {name} --json"
        wait_until(
            lambda: {found["status"] for found in json.loads(self._shell(command).stdout)} == {"synchronized"},
            f"account numbers for {name}",
        )

    def _run_python(self, block: Block) -> None:
        """Run the block; a comment beside a print is the text that it must print."""
        printed = self._shell(f'"{sys.executable}" -c "$PROGRAM"', PROGRAM=block.text).stdout
        promised = [line.partition("#")[2].strip() for line in block.lines if "print(" in line]
        assert printed.splitlines() == promised

    def _type(self, command: Command) -> None:
        if command.text in NOT_RUN:
            return
        if command.text == INTERRUPT:
            self._running.close()
            return
        if command.text == OWN_SERVERS:
            self._running.close()
            self._name_servers()
        if command.text in READY:
            self._start(command.text)
            return
        if set(_READS) & set(command.text.split()):
            self._repeat(command)
            return
        # A busy machine may take longer than a reader waits.
        output = self._shell(re.sub("--sync [0-9]+", "--sync 60", command.text)).stdout
        assert has_lines(output, command.output), f"{command.text} printed:\n{output}"
        if " --sync " in command.text:
            assert "C-" in output, f"{command.text} printed no account number: {output}"

    def _repeat(self, command: Command) -> None:
        """Repeat a command that reads until it succeeds and shows what the page does; the status of a busy machine may
        lack a part.
        """

        def shows() -> bool:
            done = self._ended(command.text)
            return done.returncode == 0 and has_lines(done.stdout, _expected(command))

        wait_until(shows, f"output of {command.text}")

    def _start(self, command: str) -> None:
        """Start a command in the background and wait until it is ready. When it is stopped it must exit with 0."""
        log = self.directory / f"{next(self._starts)}-{command.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self.directory,
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

        def stop() -> None:
            process.terminate()
            try:
                assert process.wait(SECONDS_MAX) == 0, f"{command} failed:\n{log.read_text()}"
            finally:
                process.kill()
                process.wait()

        self._running.callback(stop)

        def is_ready() -> bool:
            assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
            return READY[command] in log.read_text()

        wait_until(is_ready, f"{READY[command]} from {command}")

    def _shell(self, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command, which must succeed."""
        done = self._ended(command, **environment)
        assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def _ended(self, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self._variables() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def _name_servers(self) -> None:
        """Put the servers that `tenten up` left running into the environment, as servers of the reader's own."""
        services = local.status(self.directory / ".tenten")
        assert services is not None, "the local servers must run on when `tenten up` ends"
        self.environment["KAFKA_BOOTSTRAP_SERVERS"] = services.bootstrap_servers
        self.environment["TENTEN_HEADQUARTERS_URL"] = local.database_url(services, "headquarters")

    def _variables(self) -> dict[str, str]:
        """The environment of a reader who has set only the variables that the page names."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(_SET_BY_THE_PAGE)}
        return {**ours, "PYTHONPATH": str(ROOT), **self.environment}


def _expected(command: Command) -> list[str]:
    """The lines of output to wait for; where a page shows none, a search must find the name that it looks for."""
    words = command.text.split()
    return [f"{_ANYTHING}{words[-1]}{_ANYTHING}"] if "search" in words and not command.output else command.output


def has_lines(output: str, expected: list[str]) -> bool:
    """True if the output has each expected line; widths and letter case may differ, and `…` stands for any text."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    patterns = [
        ".*".join(re.escape(part.strip()) for part in " ".join(line.split()).split(_ANYTHING)) for line in expected
    ]
    return all(any(re.fullmatch(pattern, line, re.IGNORECASE) for line in lines) for pattern in patterns)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader; the processes that are still running at the end are stopped."""
    with ExitStack() as ends:
        yield Reader(tmp_path, ends)


@pytest.mark.parametrize("page", [README, TUTORIAL])
def test_page_can_be_followed(page: str, reader: Reader) -> None:
    """Every file is written, every command typed and every program run, in the order of the page, and the output is the
    one that the page shows; in the end every customer has an account number.
    """
    for block in blocks_of((ROOT / page).read_text(encoding="utf-8")):
        reader.follow(block)
    reader.wait_for_numbers("houston", "lovelace")


def test_exceptions_are_commands_of_the_readme() -> None:
    """Every command that the test treats specially is in README.md, so that no exception outlives its reason."""
    blocks = blocks_of((ROOT / README).read_text(encoding="utf-8"))
    typed = {command.text for block in blocks if not block.language for command in block.commands}
    assert typed >= NOT_RUN.keys() | READY.keys() | {OWN_SERVERS}
    assert {block.language for block in blocks} == {"", "python"}


def test_every_tutorial_is_executed() -> None:
    """A tutorial that is added must be followed by the test above, too."""
    assert [str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "tutorial").glob("*.md")] == [TUTORIAL]


@pytest.mark.parametrize(
    ("output", "expected", "matches"),
    [
        ("A  1\nB  2\n", ["B 2"], True),
        ("C-1  Ada  0197\n", ["C-1 Ada …"], True),
        ("C-2  Ada  0197\n", ["C-1 Ada …"], False),
        ("", ["A 1"], False),
    ],
)
def test_output_is_compared_line_by_line(output: str, expected: list[str], *, matches: bool) -> None:
    """An expected line matches with other widths and with text in place of an ellipsis, and not otherwise."""
    assert has_lines(output, expected) is matches
