"""`tenten dead-letters`: records that headquarters could not read, and what is done about them."""

import base64
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operations.cli.options import Json, Yes, confirm, examples, noun
from operations.cli.output import print_fields, print_json, print_table, report
from operations.cli.wiring import connected

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from commerce.settings import Settings
    from consumers.dead_letters import DeadLetter

app = noun(
    "Records that headquarters could not read. They are kept byte for byte, with the reason.",
    "tenten dead-letters list",
)

Places = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PARTITION/OFFSET]...", help="Which ones, as `list` shows them.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Every open one.")]


@app.command("list", epilog=examples("tenten dead-letters list", "tenten dead-letters list --all --json"))
def list_command(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that were replayed or discarded.")] = False,
    json: Json = False,
) -> None:
    """List the dead letters about which nothing has been decided, oldest first."""
    from consumers.dead_letters import list_dead_letters

    with _headquarters(context) as (settings, engine):
        letters = [one for one in list_dead_letters(settings, engine) if every or one.decision == "open"]
    if json:
        print_json([_summary(letter) for letter in letters])
    elif letters:
        columns = ("place", "failed_at", "reason", "origin", "decision", "text")
        print_table(columns, [tuple(_summary(letter)[column] for column in columns) for letter in letters])
    else:
        report("No dead letters")


@app.command(epilog=examples("tenten dead-letters show 0/17", "tenten dead-letters show 0/17 --json"))
def show(
    context: typer.Context,
    place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET", help="As `list` shows it.", show_default=False)],
    json: Json = False,
) -> None:
    """Show one dead letter: where it came from, why it could not be read, its headers, and its bytes."""
    from consumers.dead_letters import find_dead_letter

    partition, offset = _place(place)
    with _headquarters(context) as (settings, engine):
        letter = find_dead_letter(settings, engine, partition, offset)
    if json:
        print_json(_complete(letter))
        return
    shown = _complete(letter)
    headers = {f"header {name}": value for name, value in shown.pop("headers").items()}
    hexadecimal = (
        "" if letter.value is None else letter.value[:256].hex(" ") + (" ..." if len(letter.value) > 256 else "")
    )
    shown |= {"value": hexadecimal, "value_bytes": 0 if letter.value is None else len(letter.value)}
    print_fields([*shown.items(), *headers.items()])


@app.command(epilog=examples("tenten dead-letters replay 0/17 0/18", "tenten dead-letters replay --all"))
def replay(context: typer.Context, places: Places = None, every: All = False, json: Json = False) -> None:
    """Send dead letters to the topic they came from once more, byte for byte: after an upgrade, for example.

    Twice does no harm: what headquarters has taken in meanwhile is a repeat. What still cannot be read is a new dead
    letter.
    """
    from consumers.dead_letters import replay as replay_letters

    wanted = _wanted(places, every)
    with _headquarters(context) as (settings, engine):
        letters = _chosen(settings, engine, wanted)
        replayed = replay_letters(settings, engine, letters)
    if json:
        print_json({"replayed": replayed})
    else:
        report(f"{replayed} replayed")


@app.command(epilog=examples("tenten dead-letters discard 0/17 --yes", "tenten dead-letters discard --all --yes"))
def discard(
    context: typer.Context, places: Places = None, every: All = False, yes: Yes = False, json: Json = False
) -> None:
    """Give dead letters up: they are no longer listed, and expire with their topic. What they said is lost then."""
    from consumers.dead_letters import decide

    wanted = _wanted(places, every)
    with _headquarters(context) as (settings, engine):
        letters = _chosen(settings, engine, wanted)
        if letters:
            confirm(f"Give up {len(letters)} dead letters?", yes)
        decide(settings, engine, letters, "discarded")
    if json:
        print_json({"discarded": len(letters)})
    else:
        report(f"{len(letters)} discarded")


@contextmanager
def _headquarters(context: typer.Context) -> "Generator[tuple[Settings, Engine]]":
    from commerce.database import check_version, open_database

    settings = connected(context)
    engine = open_database(settings.headquarters_database())
    try:
        check_version(engine, "headquarters")
        yield settings, engine
    finally:
        engine.dispose()


def _wanted(places: list[str] | None, every: bool) -> set[tuple[int, int]] | None:
    """Partition and offset of those that were named, None for every open one. Raises: `typer.BadParameter`."""
    if every == bool(places):
        raise typer.BadParameter("name dead letters as PARTITION/OFFSET, or say --all", param_hint="PARTITION/OFFSET")
    return {_place(place) for place in places} if places else None


def _chosen(settings: "Settings", engine: "Engine", wanted: set[tuple[int, int]] | None) -> "list[DeadLetter]":
    """These dead letters, or every open one. Raises: `NoSuchDeadLetter`."""
    from commerce.failures import NoSuchDeadLetter
    from consumers.dead_letters import list_dead_letters

    letters = list(list_dead_letters(settings, engine))
    if wanted is None:
        return [letter for letter in letters if letter.decision == "open"]
    found = {(letter.partition, letter.offset): letter for letter in letters}
    for partition, offset in sorted(wanted - found.keys()):
        raise NoSuchDeadLetter(f"there is no dead letter {partition}/{offset}: see `tenten dead-letters list --all`")
    return [found[one] for one in sorted(wanted)]


def _place(text: str) -> tuple[int, int]:
    partition, slash, offset = text.partition("/")
    if not (slash and partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise typer.BadParameter(f"{text!r} is not PARTITION/OFFSET, for example 0/17", param_hint="PARTITION/OFFSET")
    return int(partition), int(offset)


def _summary(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "place": f"{letter.partition}/{letter.offset}",
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "text": letter.text,
        "origin": letter.origin,
        "attempt": letter.header("x-dlq-attempt"),
        "failed_at": letter.header("x-dlq-failed-at"),
        "decision": letter.decision,
    }


def _complete(letter: "DeadLetter") -> dict[str, Any]:
    """Everything; key and headers as text as far as they are text, the value in base64."""
    return _summary(letter) | {
        "timestamp": datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        "value": None if letter.value is None else base64.b64encode(letter.value).decode(),
        "headers": {
            name: None if value is None else value.decode(errors="backslashreplace") for name, value in letter.headers
        },
    }
