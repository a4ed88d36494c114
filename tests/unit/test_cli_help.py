"""Help, and the small pure parts of the command line."""

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from tenten.cli.init import CONFIGURATION
from tenten.cli.main import app, in_front
from tenten.cli.options import EverywhereOptions, LogFormatOption, pairs
from tenten.runtime.logs import LogFormat
from tenten.runtime.settings import Settings
from tenten.workers import ALL, CHANNEL_FAILPOINTS

ROOT = Path(__file__).parents[2]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it."""
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, one in below.items():
        yield from commands(one, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))

EXPECTED = """
channel distribute, channel relay, channel resync, channel run, channel settle, channel status, config show,
customer create, customer discard, customer edit, customer import, customer search, customer show,
database upgrade all, database upgrade channel, database upgrade headquarters, day close, day list, day resend,
day show, dead-letters discard, dead-letters list, dead-letters replay, dead-letters show, demo, doctor,
headquarters run, headquarters verify, init, lag, local start, local status, local stop, loyalty issue, loyalty show,
order create, order list, order resend, order show, sale create, sale list, sale resend, sale show, statement list,
statement show, status, topics apply, transactions list, transactions run, transactions show, up
"""


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[tuple[str, ...]], str]:
    """Returns what `--help` prints on a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")

    def shown(path: tuple[str, ...]) -> str:
        app(args=[*path, "--help"], prog_name="tenten", standalone_mode=False)
        return capsys.readouterr().out

    return shown


def test_commands_are_those_that_are_documented() -> None:
    """Nothing is offered that does not exist, and nothing is missing."""
    assert sorted(" ".join(path) for path in COMMANDS) == [one.strip() for one in EXPECTED.split(",")]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_sentence_and_an_example_of_itself(path: tuple[str, ...]) -> None:
    """Whoever asks for help sees what the command does, and a line to copy."""
    command = COMMANDS[path]
    assert command.help.splitlines()[0].endswith("."), "the first line is a sentence"
    assert f"  tenten {' '.join(path)}" in command.epilog


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_with_a_value_says_what_it_takes(path: tuple[str, ...]) -> None:
    """No option shows the name of a Python type."""
    for parameter in COMMANDS[path].params:
        assert parameter.param_type_name == "argument" or parameter.is_flag or parameter.metavar, parameter.name


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_stands_in_the_interface_page(path: tuple[str, ...]) -> None:
    """Each word that leads to a command is in docs/interface.md."""
    page = (ROOT / "docs" / "interface.md").read_text()
    assert all(word in page for word in path)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_json_is_offered_wherever_data_is_printed(path: tuple[str, ...]) -> None:
    """Programs can read what people can read."""
    silent = {
        *(worker.command[-1] for worker in ALL),
        "init",
        "resync",
        "stop",
        "up",
        "demo",
        "headquarters",
        "channel",
        "all",
    }
    offers = any("--json" in parameter.opts for parameter in COMMANDS[path].params)
    assert offers is (path[-1] not in silent)


@pytest.mark.parametrize(
    ("path", "names"),
    [*((worker.command, worker.failpoints) for worker in ALL), (("channel", "run"), CHANNEL_FAILPOINTS)],
    ids=[*(worker.name for worker in ALL), "channel"],
)
def test_help_of_workers_lists_their_failpoints(
    path: tuple[str, ...], names: tuple[str, ...], help_of: Callable[[tuple[str, ...]], str]
) -> None:
    """A test's author finds the names to put into TENTEN_FAILPOINT."""
    shown = help_of(path)
    assert "TENTEN_FAILPOINT" in shown
    assert all(name in shown.split() for name in names)


def test_help_shows_examples_as_they_are_written(help_of: Callable[[tuple[str, ...]], str]) -> None:
    """A line to copy is not broken, however narrow the terminal."""
    assert (
        "  tenten customer create houston --first-name Ada --last-name Lovelace --email ada@example.com --sync 5\n"
        in (help_of(("customer", "create")))
    )


def test_help_imports_nothing_that_takes_long() -> None:
    """Columns, Kafka, SQL and settings are imported by the commands that need them."""
    program = (
        "import sys; from tenten.cli.main import app; "
        "slow = {'polars', 'pyarrow', 'confluent_kafka', 'sqlalchemy', 'pydantic', 'psycopg', 'rich', 'structlog'}; "
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_log_formats_are_those_of_the_logs() -> None:
    """`--log-format` takes every format, and no other."""
    taken = get_args(get_args(get_args(LogFormatOption)[0])[0])
    assert taken == get_args(LogFormat)


def test_every_command_that_runs_on_takes_a_log_format() -> None:
    """Workers, `up` and `resync` write logs."""
    runs_on = {worker.command for worker in ALL} | {("channel", "run"), ("channel", "resync"), ("up",)}
    taking = {
        path
        for path, command in COMMANDS.items()
        if any("--log-format" in parameter.opts for parameter in command.params)
    }
    assert taking == runs_on


def test_commands_that_record_an_event_take_an_operator() -> None:
    """Only these: `resend` keeps the operator, and the others write no event. All have the variable."""
    options = {
        path: parameter
        for path, command in COMMANDS.items()
        for parameter in command.params
        if "--operator" in parameter.opts
    }
    assert sorted(" ".join(path) for path in options) == [
        "customer create",
        "customer edit",
        "customer import",
        "day close",
        "loyalty issue",
        "order create",
        "sale create",
    ]
    assert {option.envvar for option in options.values()} == {"TENTEN_OPERATOR"}


def test_completion_offers_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell that asks for completions of `tenten cust` is answered."""
    monkeypatch.setenv("_TENTEN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tenten cust")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        app(args=[], prog_name="tenten")
    assert capsys.readouterr().out.split() == ["customer"]


def test_configuration_to_start_from_is_valid() -> None:
    """`tenten init` writes settings of two stores, each with the address books of the other."""
    settings = Settings.model_validate(tomllib.loads(CONFIGURATION), context={"directory": ROOT})
    assert settings.channels.keys() == {"houston", "seattle"}


def test_options_of_every_command_may_stand_anywhere() -> None:
    """--config and --kafka go before the command; what comes after -- is left alone."""
    said = ["customer", "show", "--kafka", "a=b", "houston", "--config=x.toml", "--", "--kafka", "c=d"]
    expected = ["--kafka", "a=b", "--config=x.toml", "customer", "show", "houston", "--", "--kafka", "c=d"]
    assert in_front(said) == expected


def test_option_without_its_value_stays_an_error() -> None:
    """A --config at the very end has nothing to take along."""
    assert in_front(["status", "--config"]) == ["--config", "status"]


def test_same_options_for_another_process() -> None:
    """What was said to `up` is said to the processes that it starts."""
    options = EverywhereOptions(config=Path("/etc/tenten.toml"), kafka={"client.id": "till", "acks": "all"})
    assert options.as_arguments() == (
        "--config",
        "/etc/tenten.toml",
        "--kafka",
        "client.id=till",
        "--kafka",
        "acks=all",
    )


def test_pairs_keep_equals_signs_of_the_value() -> None:
    """Only the first equals sign divides, and nothing after it is an empty value."""
    assert pairs(["a=b=c", "d="], "--set") == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("text", ["a", "=b", ""])
def test_pairs_without_a_name_or_an_equals_sign_are_refused(text: str) -> None:
    """What is no NAME=VALUE is a usage error."""
    with pytest.raises(typer.BadParameter):
        pairs([text], "--set")
