"""Help texts, and the pure functions of the command line."""

import json
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
    """Every command with its words."""
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        yield path, command
    for name, subcommand in subcommands.items():
        yield from commands(subcommand, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))

EXPECTED = """
channel distribute, channel enroll, channel relay, channel resume, channel resync, channel rotate-key, channel run,
channel settle, channel status, channel suspend, config show,
customer create, customer discard, customer edit, customer erase, customer import, customer search, customer show,
database upgrade all, database upgrade channel, database upgrade headquarters, day close, day list, day resend,
day show, dead-letters discard, dead-letters list, dead-letters replay, dead-letters show, demo, doctor, fleet,
headquarters held list, headquarters held reject,
headquarters recover, headquarters republish, headquarters run, headquarters verify, headquarters web, init, lag,
local start, local status, local stop, loyalty issue, loyalty show, order create, order list, order resend, order show,
sale create, sale list, sale resend, sale show, settings apply, settings diff, settings history, settings show,
statement list, statement show, status, store join, topics acls, topics apply,
transactions list, transactions run, transactions show, up
"""


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[tuple[str, ...]], str]:
    """Returns the output of `--help` on a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")

    def shown(path: tuple[str, ...]) -> str:
        app(args=[*path, "--help"], prog_name="tenten", standalone_mode=False)
        return capsys.readouterr().out

    return shown


def test_commands_are_those_expected() -> None:
    """The command line has exactly these commands."""
    assert sorted(" ".join(path) for path in COMMANDS) == [command.strip() for command in EXPECTED.split(",")]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_sentence_and_an_example_of_itself(path: tuple[str, ...]) -> None:
    """Help begins with a sentence and ends with an example to copy."""
    command = COMMANDS[path]
    assert command.help.splitlines()[0].endswith("."), "the first line is a sentence"
    assert f"  tenten {' '.join(path)}" in command.epilog


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_with_a_value_has_a_metavar(path: tuple[str, ...]) -> None:
    """No option shows the name of a Python type instead."""
    for parameter in COMMANDS[path].params:
        assert parameter.param_type_name == "argument" or parameter.is_flag or parameter.metavar, parameter.name


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_interface_page(path: tuple[str, ...]) -> None:
    """Each word of the command is in docs/interface.md."""
    page = (ROOT / "docs" / "interface.md").read_text()
    assert all(word in page for word in path)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_commands_that_print_data_have_json(path: tuple[str, ...]) -> None:
    """Every command that prints data has `--json`, and no other."""
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
        "web",
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
    """The help of a worker shows the names for TENTEN_FAILPOINT."""
    shown = help_of(path)
    assert "TENTEN_FAILPOINT" in shown
    assert all(name in shown.split() for name in names)


def test_help_shows_examples_as_they_are_written(help_of: Callable[[tuple[str, ...]], str]) -> None:
    """Examples are not wrapped on a narrow terminal."""
    assert (
        "  tenten customer create houston --first-name Ada --last-name Lovelace --email ada@example.com --sync 5\n"
        in (help_of(("customer", "create")))
    )


def test_help_imports_no_slow_library() -> None:
    """Libraries for columns, Kafka, SQL and settings are imported only by the commands that need them."""
    program = (
        "import sys; from tenten.cli.main import app; "
        "slow = {'polars', 'pyarrow', 'confluent_kafka', 'sqlalchemy', 'pydantic', 'psycopg', 'rich', 'structlog'}; "
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_log_formats_are_those_of_the_logs() -> None:
    """`--log-format` accepts every format, and no other."""
    accepted = get_args(get_args(get_args(LogFormatOption)[0])[0])
    assert accepted == get_args(LogFormat)


def test_every_command_that_writes_logs_has_a_log_format() -> None:
    """Workers, the dashboard, `up`, `resync` and the ways out of an accident have `--log-format`, no other command."""
    ways_out = {("headquarters", command) for command in ("recover", "republish", "verify", "web")}
    with_logs = {worker.command for worker in ALL} | ways_out | {("channel", "run"), ("channel", "resync"), ("up",)}
    with_option = {
        path
        for path, command in COMMANDS.items()
        if any("--log-format" in parameter.opts for parameter in command.params)
    }
    assert with_option == with_logs


def test_commands_that_record_an_event_or_a_decision_take_an_operator() -> None:
    """Only these: `resend` keeps the operator, and the others record neither. All have the variable."""
    options = {
        path: parameter
        for path, command in COMMANDS.items()
        for parameter in command.params
        if "--operator" in parameter.opts
    }
    assert sorted(" ".join(path) for path in options) == [
        "channel enroll",
        "channel resume",
        "channel rotate-key",
        "channel suspend",
        "customer create",
        "customer edit",
        "customer erase",
        "customer import",
        "day close",
        "headquarters held reject",
        "loyalty issue",
        "order create",
        "sale create",
        "settings apply",
    ]
    assert {option.envvar for option in options.values()} == {"TENTEN_OPERATOR"}


def test_completion_offers_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The completion of `tenten cust` is `customer`."""
    monkeypatch.setenv("_TENTEN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tenten cust")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        app(args=[], prog_name="tenten")
    assert capsys.readouterr().out.split() == ["customer"]


def test_configuration_of_init_is_valid() -> None:
    """`tenten init` writes valid settings of two stores."""
    settings = Settings.model_validate(tomllib.loads(CONFIGURATION), context={"directory": ROOT})
    assert settings.channels.keys() == {"houston", "seattle"}


def test_global_options_work_after_the_command() -> None:
    """--config and --kafka are moved before the command; arguments after -- are left alone."""
    given = ["customer", "show", "--kafka", "a=b", "houston", "--config=x.toml", "--", "--kafka", "c=d"]
    expected = ["--kafka", "a=b", "--config=x.toml", "customer", "show", "houston", "--", "--kafka", "c=d"]
    assert in_front(given) == expected


def test_option_without_its_value_stays_an_error() -> None:
    """A --config without a value at the end is moved alone."""
    assert in_front(["status", "--config"]) == ["--config", "status"]


def test_global_options_are_passed_to_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` passes its own options to the processes that it starts: those of Kafka by the environment, beside what that
    has already.
    """
    monkeypatch.delenv("TENTEN_KAFKA", raising=False)
    options = EverywhereOptions(config=Path("/etc/tenten.toml"), kafka={"client.id": "till", "sasl.password": "x=y"})
    assert options.as_arguments() == ("--config", "/etc/tenten.toml")
    assert options.as_environment() == {"TENTEN_KAFKA": '{"client.id": "till", "sasl.password": "x=y"}'}
    assert EverywhereOptions().as_environment() == {}
    monkeypatch.setenv("TENTEN_KAFKA", '{"ssl.key.password": "z", "client.id": "other"}')
    passed_on = json.loads(options.as_environment()["TENTEN_KAFKA"])
    assert passed_on == {"ssl.key.password": "z", "client.id": "till", "sasl.password": "x=y"}


def test_pairs_keep_equals_signs_of_the_value() -> None:
    """A pair is split at its first equals sign; the value may be empty."""
    assert pairs(["a=b=c", "d="], "--set") == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("text", ["a", "=b", ""])
def test_pairs_without_a_name_or_an_equals_sign_are_refused(text: str) -> None:
    """A text that is not NAME=VALUE is a usage error."""
    with pytest.raises(typer.BadParameter):
        pairs([text], "--set")
