"""What a command prints: data to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from tenten.schemas.messages import Reason

_GAP: Final = "  "


def print_json(value: Any) -> None:
    """One JSON document on one line, in UTF-8 whatever the terminal's encoding is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(json.dumps(value, ensure_ascii=False, default=_plain).encode() + b"\n")
    sys.stdout.buffer.flush()


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_line(text: str) -> None:
    """One line for people."""
    print(_printable(text), flush=True)


def report(text: str) -> None:
    """One line about what is going on."""
    print(_printable(text), file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns under their names, as wide as what stands in them."""
    from rich.cells import cell_len

    lines = [[column.upper() for column in columns], *([_cell(value) for value in row] for row in rows)]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
        print(_GAP.join(cells).rstrip())
    sys.stdout.flush()


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One line for each field that says something, the values under each other."""
    shown = [(name, text) for name, value in fields if (text := _cell(value)) not in ("", "-")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        print(f"{name:<{width}}{_GAP}{text}")
    sys.stdout.flush()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return _printable(str(value))


def _printable(text: str) -> str:
    """The text without what would move the cursor or colour the terminal, and fit for its encoding."""
    visible = "".join(one if one.isprintable() else " " if one.isspace() else "\ufffd" for one in text)
    encoding = sys.stdout.encoding or "utf-8"
    return visible.encode(encoding, errors="replace").decode(encoding)


class Bar(Protocol):
    """Told how much is done, and of how much where that is known."""

    def __call__(self, done: float, total: float | None = None, what: str | None = None) -> None: ...


@contextmanager
def progress_bar(what: str, unit: str) -> Generator[Bar]:
    """A bar on stderr with rate and time left; where that is no terminal, one line at the end."""
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


def report_reasons(reasons: "Iterable[Reason]") -> None:
    """One line to stderr for each."""
    for reason in reasons:
        report(f"  {reason.field}: {reason.text}")
