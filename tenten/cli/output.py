"""Printing: data to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenten.cli.formats import cell, heading

if TYPE_CHECKING:
    from tenten.schemas.messages import Reason

_GAP: Final = "  "


def print_json(value: Any) -> None:
    """Print one JSON document on one line, in UTF-8 regardless of the terminal's encoding.

    A dataclass, also within others, becomes an object with its fields.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(json.dumps(value, ensure_ascii=False, default=_plain).encode() + b"\n")
    sys.stdout.buffer.flush()


def print_document(text: str) -> None:
    """Print a text document, in UTF-8 regardless of the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_line(text: str) -> None:
    """Print one line for people to stdout."""
    print(_printable(text), flush=True)


def report(text: str) -> None:
    """Print one line to stderr."""
    print(_printable(text), file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns under their names."""
    from rich.cells import cell_len

    lines = [
        [heading(column).upper() for column in columns],
        *([_printable(cell(value)) for value in row] for row in rows),
    ]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
        print(_GAP.join(cells).rstrip())
    sys.stdout.flush()


def print_fields(fields: Iterable[tuple[str, object]], *, names_as_given: bool = False) -> None:
    """Print one line for each field with a value, the values aligned."""
    texts = ((name, _printable(cell(value))) for name, value in fields)
    shown = [(name if names_as_given else heading(name), text) for name, text in texts if text not in ("", "-")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        print(f"{name:<{width}}{_GAP}{text}")
    sys.stdout.flush()


def _printable(text: str) -> str:
    """The text without control characters, in characters that the terminal's encoding has."""
    visible = "".join(
        character if character.isprintable() else " " if character.isspace() else "\ufffd" for character in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return visible.encode(encoding, errors="replace").decode(encoding)


class Bar(Protocol):
    """Called with the amount done, and the total if it is known."""

    def __call__(self, done: float, total: float | None = None, what: str | None = None) -> None: ...


@contextmanager
def progress_bar(what: str, unit: str) -> Generator[Bar]:
    """A bar on stderr with rate and time left; one line at the end if stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with progress:
        task = progress.add_task(what, total=None, done="", rate="")

        def move(done: float, total: float | None = None, what: str | None = None) -> None:
            seconds = progress.tasks[task].elapsed or 0.0
            rate = f"{done / seconds:,.0f} {unit}/s" if seconds > 0.1 else ""
            progress.update(task, completed=done, total=total, done=f"{done:,.0f} {unit}", rate=rate)
            if what is not None:
                progress.update(task, description=what)

        yield move


def reason_codes(reasons: Iterable[Mapping[str, str]]) -> str:
    """The codes of headquarters' reasons, each once."""
    return ", ".join(sorted({reason["code"] for reason in reasons}))


def print_reasons(reasons: Sequence[Mapping[str, str]]) -> None:
    """Print a table of headquarters' reasons, if there are any, after an empty line."""
    if reasons:
        print_line("")
        print_table(
            ("field", "code", "text"), [(reason["field"], reason["code"], reason["text"]) for reason in reasons]
        )


def report_reasons(reasons: "Iterable[Reason]") -> None:
    """Print one line to stderr for each reason."""
    for reason in reasons:
        report(f"  {reason.field}: {reason.text}")
