"""The live view of the stores while the demonstration runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.live import Live
from rich.table import Table

from tenten.demo.stage import DemoFailed, Stage, check_processes
from tenten.demo.stores import standing

_FRAME_SECONDS: Final = 1.0
"""The queries of a frame take time from the processes that they watch."""


class View:
    """The table on the screen."""

    def __init__(self, stage: Stage, live: Live) -> None:
        self._stage = stage
        self._live = live

    def look(self, seconds: float) -> None:
        """Show the view for some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(_FRAME_SECONDS)
            self._live.update(_table(self._stage), refresh=True)

    def wait(self, what: str, holds: Callable[[], bool], seconds_max: float) -> None:
        """Show the view until the condition holds. Raises: `DemoFailed` if it is late, or a process has ended."""
        give_up_at = time.monotonic() + seconds_max
        while not holds():
            check_processes(self._stage)
            if time.monotonic() > give_up_at:
                raise DemoFailed(f"not within {seconds_max:.0f} s: {what}; see the logs in {self._stage.place}")
            self.look(_FRAME_SECONDS)


@contextmanager
def viewing(stage: Stage) -> Iterator[View]:
    """Show the live view until the block ends."""
    with Live(_table(stage), console=stage.console, auto_refresh=False) as live:
        yield View(stage, live)
        live.update(_table(stage), refresh=True)
    if not stage.console.is_terminal:
        stage.console.line()


def _table(stage: Stage) -> Table:
    view = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, caption=_CAPTION, caption_justify="left")
    for name in ("store", "line"):
        view.add_column(name, no_wrap=True)
    for name in ("created", "pending", "in all", "p50", "p99", "sales", "orders", "waiting"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("day", no_wrap=True)
    for name, store in stage.stores.items():
        now = standing(store, stage.imported_at)
        latency = ["" if value is None else f"{value:.0f}" for value in (now.p50_ms, now.p99_ms)]
        customers = [f"{count:,}" for count in (now.created, now.pending, now.customers)]
        sold = [f"{count:,}" for count in (now.sales, now.orders, now.waiting)]
        view.add_row(name, stage.state[name], *customers, *latency, *sold, now.day or "open")
    return view


_CAPTION: Final = """\
p50, p99: milliseconds from a create at the till to its account number there
waiting: sales and orders that are not synchronized yet"""
