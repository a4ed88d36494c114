"""`tenten dead-letters`: records that headquarters could not read.

A dead letter of async-customers is called `0/17` (partition and offset), any other `retail-transactions.dlq/0/17`.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tenten.cli.options import Json, Yes, confirm, examples, noun
from tenten.cli.output import print_fields, print_json, print_table, report
from tenten.cli.wiring import headquarters_engine

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tenten.consumers.headquarters.dead_letters import DeadLetter
    from tenten.runtime.settings import Settings
    from tenten.schemas.topics import Topic

app = noun(
    "Records that headquarters could not read, kept byte for byte with the reason.",
    "tenten dead-letters list",
)

Places = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PLACE]...",
        help="Dead letters, as `list` shows them: 0/17, or retail-transactions.dlq/0/17.",
        show_default=False,
    ),
]
TopicName = Annotated[
    str | None,
    typer.Option(
        "--topic",
        metavar="TOPIC",
        help="Only those of async-customers, or of retail-transactions.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every open one.")]


@app.command(
    "list",
    epilog=examples(
        "tenten dead-letters list",
        "tenten dead-letters list --topic retail-transactions",
        "tenten dead-letters list --all --json",
    ),
)
def list_command(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also dead letters that were replayed or discarded.")] = False,
    topic: TopicName = None,
    json: Json = False,
) -> None:
    """List open dead letters, those that were not replayed or discarded; of each topic the oldest first."""
    topics = _topics(topic)
    with headquarters_engine(context) as (settings, engine):
        letters = [letter for letter in _letters(settings, engine, topics) if every or letter.decision == "open"]
    if json:
        print_json([_summary(letter) for letter in letters])
    elif letters:
        columns = ("place", "topic", "failed_at", "reason", "origin", "decision", "text")
        print_table(columns, [tuple(_summary(letter)[column] for column in columns) for letter in letters])
    else:
        report("No dead letters")


@app.command(
    epilog=examples(
        "tenten dead-letters show 0/17",
        "tenten dead-letters show retail-transactions.dlq/0/3",
        "tenten dead-letters show 0/17 --json",
    )
)
def show(
    context: typer.Context,
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="As `list` shows it: 0/17, or retail-transactions.dlq/0/17.",
            show_default=False,
        ),
    ],
    topic: TopicName = None,
    json: Json = False,
) -> None:
    """Show a dead letter: its origin, the reason why it could not be read, its headers and its bytes."""
    from tenten.consumers.headquarters.dead_letters import find_dead_letter

    wanted = _place(place, topic)
    [its_topic] = _topics(wanted.topic)
    with headquarters_engine(context) as (settings, engine):
        letter = find_dead_letter(settings, engine, its_topic, wanted.partition, wanted.offset)
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


@app.command(
    epilog=examples(
        "tenten dead-letters replay 0/17 0/18",
        "tenten dead-letters replay --all",
        "tenten dead-letters replay --all --topic retail-transactions",
    )
)
def replay(
    context: typer.Context, places: Places = None, every: All = False, topic: TopicName = None, json: Json = False
) -> None:
    """Send dead letters to their topic again, byte for byte, for example after an upgrade.

    Idempotent: headquarters recognizes repeats. A record that still cannot be read becomes a new dead letter. One that
    was too large to be kept whole cannot be replayed, and stays open.
    """
    from tenten.consumers.headquarters.dead_letters import replay as replay_letters

    wanted = _wanted(places, every, topic)
    topics = _topics(topic)
    with headquarters_engine(context) as (settings, engine):
        letters = _chosen(settings, engine, topics, wanted)
        replayed = replay_letters(settings, engine, letters)
    cut = sum(letter.is_cut for letter in letters)
    if json:
        print_json({"replayed": replayed})
    else:
        report(f"{replayed} replayed")
    if cut:
        report(f"{cut} cannot be replayed: of a record that is too large only the beginning is kept. Discard them")


@app.command(epilog=examples("tenten dead-letters discard 0/17 --yes", "tenten dead-letters discard --all --yes"))
def discard(
    context: typer.Context,
    places: Places = None,
    *,
    every: All = False,
    topic: TopicName = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Discard dead letters: they are no longer listed, and expire with their topic. Their content is lost then."""
    from tenten.consumers.headquarters.dead_letters import record_decision

    wanted = _wanted(places, every, topic)
    topics = _topics(topic)
    with headquarters_engine(context) as (settings, engine):
        letters = _chosen(settings, engine, topics, wanted)
        if letters:
            confirm(f"Discard {len(letters)} dead letters?", yes)
        record_decision(settings, engine, letters, "discarded")
    if json:
        print_json({"discarded": len(letters)})
    else:
        report(f"{len(letters)} discarded")


class _Place(NamedTuple):
    """The position of a dead letter: its topic's name without prefix, partition and offset."""

    topic: str
    partition: int
    offset: int


def _topics(name: str | None) -> "Sequence[Topic]":
    """The dead letter topic of the named topic, or the named dead letter topic itself; all for None.

    Raises: `typer.BadParameter`.
    """
    from tenten.schemas.topics import DEAD_LETTERS_OF

    found = [topic for read, topic in DEAD_LETTERS_OF.items() if name is None or name in (read, topic.name)]
    if not found:
        names = " or ".join(DEAD_LETTERS_OF)
        raise typer.BadParameter(f"{name!r} has no dead letters: name {names}", param_hint="--topic")
    return found


def _letters(settings: "Settings", engine: "Engine", topics: "Sequence[Topic]") -> "list[DeadLetter]":
    from tenten.consumers.headquarters.dead_letters import list_dead_letters

    return [letter for topic in topics for letter in list_dead_letters(settings, engine, topic)]


def _wanted(places: list[str] | None, every: bool, topic: str | None) -> set[_Place] | None:
    """The named dead letters, None for every open one. Raises: `typer.BadParameter`."""
    if every == bool(places):
        raise typer.BadParameter("name dead letters as PARTITION/OFFSET, or use --all", param_hint="PLACE")
    return {_place(place, topic) for place in places} if places else None


def _chosen(
    settings: "Settings", engine: "Engine", topics: "Sequence[Topic]", wanted: set[_Place] | None
) -> "list[DeadLetter]":
    """These dead letters, or every open one of the topics. Raises: `NoSuchDeadLetter`."""
    from tenten.consumers.headquarters.dead_letters import position_text
    from tenten.runtime.errors import NoSuchDeadLetter

    if wanted is None:
        return [letter for letter in _letters(settings, engine, topics) if letter.decision == "open"]
    named = [topic for topic in topics if topic.name in {place.topic for place in wanted}]
    letters = _letters(settings, engine, named)
    found = {_Place(letter.topic.name, letter.partition, letter.offset): letter for letter in letters}
    for missing in sorted(wanted - found.keys()):
        [its_topic] = _topics(missing.topic)
        name = position_text(its_topic, missing.partition, missing.offset)
        raise NoSuchDeadLetter(f"there is no dead letter {name}: see `tenten dead-letters list --all`")
    return [found[place] for place in sorted(wanted)]


def _place(text: str, topic: str | None) -> _Place:
    """PARTITION/OFFSET of the named topic (default: async-customers), or TOPIC/PARTITION/OFFSET.

    Raises: `typer.BadParameter`.
    """
    from tenten.schemas.topics import ASYNC_CUSTOMERS_DLQ

    before, slash, offset = text.rpartition("/")
    name, named, partition = before.rpartition("/")
    if not (slash and partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        example = "for example 0/17, or retail-transactions.dlq/0/17"
        raise typer.BadParameter(f"{text!r} is not PARTITION/OFFSET, {example}", param_hint="PLACE")
    [its_topic] = _topics(name if named else topic or ASYNC_CUSTOMERS_DLQ.name)
    if topic is not None and its_topic not in _topics(topic):
        raise typer.BadParameter(f"{text!r} is not one of {topic}", param_hint="--topic")
    return _Place(its_topic.name, int(partition), int(offset))


def _summary(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "place": letter.position,
        "topic": letter.topic.name,
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
    """All fields; bytes in key and headers that are not text are escaped, the value is in base64."""
    return _summary(letter) | {
        "timestamp": datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        "value": None if letter.value is None else base64.b64encode(letter.value).decode(),
        "headers": {
            name: None if value is None else value.decode(errors="backslashreplace") for name, value in letter.headers
        },
    }
