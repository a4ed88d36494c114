"""Progress of long commands: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from tenten.cli.output import Bar, progress_bar, report

_LINE_SECONDS: Final = 5.0


@contextmanager
def progress_shown(command: str, unit: str) -> Generator[Bar]:
    """Shows on stderr how far a command has come."""
    if sys.stderr.isatty():
        with progress_bar(command, unit) as bar:
            yield bar
        return
    shown_at = time.monotonic()

    def show(done: float, total: float | None = None, what: str | None = None) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= _LINE_SECONDS:
            shown_at = time.monotonic()
            of_total = "" if total is None else f" of {total:,.0f}"
            report(f"{command}: {what or unit}: {done:,.0f}{of_total} {unit}")

    yield show
