"""`tenten`: its nouns, the options that every command takes, and exit codes of failures.

Slow imports (columns, Kafka, SQL) are left to the commands that need them, because a clerk waits for each.
"""

import gc
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from tenten.cli import (
    channel,
    config,
    customer,
    database,
    day,
    dead_letters,
    demo,
    headquarters,
    health,
    init,
    local,
    loyalty,
    selling,
    settings,
    statement,
    store,
    topics,
    transactions,
    up,
)
from tenten.cli.exit_codes import FAILED, USAGE
from tenten.cli.options import EverywhereOptions, examples, noun, pairs
from tenten.cli.output import report
from tenten.runtime.environment import KAFKA_VARIABLE

_EVERYWHERE: Final = ("--config", "--kafka")

app = noun(
    "Asynchronous customers between stores and headquarters: one event stream, one account number per customer.\n\n"
    "--config and --kafka may be given before or after the command. Data goes to stdout, everything else to stderr. "
    "Exit codes: 0 ok, 1 failed or differences found, 2 wrong usage or settings, 3 unhealthy.",
    "tenten init",
    "tenten up",
    "tenten customer create houston --first-name Ada --sync 5",
    "tenten status",
    completion=True,
)
app.add_typer(local.app, name="local")
app.add_typer(settings.app, name="settings")
app.add_typer(topics.app, name="topics")
app.add_typer(database.app, name="database")
app.add_typer(headquarters.app, name="headquarters")
app.add_typer(transactions.app, name="transactions")
app.add_typer(channel.app, name="channel")
app.add_typer(store.app, name="store")
app.add_typer(customer.app, name="customer")
app.add_typer(statement.app, name="statement")
app.add_typer(selling.order, name="order")
app.add_typer(selling.sale, name="sale")
app.add_typer(day.app, name="day")
app.add_typer(loyalty.app, name="loyalty")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(config.app, name="config")
app.command(epilog=examples("tenten init", "tenten init shop"))(init.init)
app.command(epilog=examples("tenten up", "tenten up --log-format json"))(up.up)
app.command(epilog=examples("tenten demo"))(demo.demo)
app.command(epilog=examples("tenten status", "tenten status --json"))(health.status)
app.command(epilog=examples("tenten fleet", "tenten fleet --json"))(health.fleet)
app.command(epilog=examples("tenten lag", "tenten lag --json"))(health.lag)
app.command(epilog=examples("tenten doctor", "tenten doctor --json"))(health.doctor)


def _show_version(show: bool) -> None:
    if show:
        from tenten.runtime.release import release

        print(f"tenten {found}" if (found := release()) else "tenten, run from its sources")
        raise typer.Exit


@app.callback()
def tenten(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            show_default=False,
            help="The configuration file. Default: the file in TENTEN_CONFIG, else tenten.toml in this directory.",
        ),
    ] = None,
    kafka: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            show_default=False,
            help="Any property of librdkafka; wins over all other settings. Repeatable.",
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keep the options for the command."""
    properties = pairs(kafka or [], "--kafka")
    if properties:
        from tenten.runtime.settings.kafka_properties import is_secret

        for name in filter(is_secret, properties):
            report(
                f"Warning: other users of this machine can read the {name} on the command line; set "
                f"KAFKA_SASL_PASSWORD or {KAFKA_VARIABLE} in the environment, or write it into tenten.toml"
            )
    context.obj = EverywhereOptions(config=config_file, kafka=properties)


def main() -> NoReturn:
    """Run the command line and exit."""
    # A command keeps most of what it makes until it ends: looking through it took a fifth of the time of a large one.
    gc.set_threshold(50_000)
    try:
        with _traced():
            code = app(args=in_front(sys.argv[1:]), prog_name="tenten", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        sys.exit(FAILED)
    except typer.TyperException as error:
        # A usage error shows the usage of its command, too.
        error.show() if hasattr(error, "show") else report(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has closed it. Flushing the rest of the buffer at exit must not fail again.
        sys.stdout = None
        sys.exit(FAILED)
    except Exception as error:
        from tenten.failure_messages import explain

        sentence = explain(error)
        if sentence is None:
            raise
        report(f"tenten: {sentence}")
        sys.exit(_exit_code(error))


@contextmanager
def _traced() -> Generator[None]:
    """What the command writes belongs to the trace of its caller, if the environment names one."""
    traceparent = os.environ.get("TRACEPARENT")
    if traceparent is None:
        yield
        return
    from tenten.runtime.span_export import export_spans
    from tenten.runtime.tracing import send_spans, traced_by

    export_spans("tenten")
    try:
        with traced_by(traceparent):
            yield
    finally:
        send_spans()


def _exit_code(error: Exception) -> int:
    from tenten.runtime.errors import SettingsError

    return USAGE if isinstance(error, SettingsError) else FAILED


def in_front(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config` and `--kafka` moved before the command.

    >>> in_front(["status", "--config", "a.toml", "--json"])
    ['--config', 'a.toml', 'status', '--json']
    """
    front: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif argument in _EVERYWHERE:
            front += [argument, *([] if (value := next(left, None)) is None else [value])]
        elif argument.startswith(tuple(f"{name}=" for name in _EVERYWHERE)):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


if __name__ == "__main__":
    main()
