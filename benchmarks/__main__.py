"""`python -m benchmarks`: measure, print the table, write the results."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.decoding import decoding
from benchmarks.distribution import into_postgresql, into_sqlite
from benchmarks.headquarters import headquarters, warm_up_broker
from benchmarks.latency import latency
from benchmarks.measuring import FULL, SMALL, Result, Scale
from benchmarks.relay import relay
from benchmarks.servers import Servers, own_servers
from benchmarks.starting import starting
from benchmarks.transactions import transactions

Benchmark = Callable[[Servers, Scale, frozenset[str]], Iterator[Result]]

BENCHMARKS: Final[tuple[tuple[frozenset[str], Benchmark], ...]] = (
    (frozenset({"P1", "P2"}), into_postgresql),
    (frozenset({"P5", "P6"}), headquarters),
    (frozenset({"P7"}), latency),
    (frozenset({"P8"}), relay),
    (frozenset({"P9"}), into_sqlite),
    (frozenset({"O1", "O2", "O3"}), transactions),
    (frozenset({"E1"}), decoding),
    (frozenset({"L1"}), starting),
)
_FILE_WIDTH: Final = 160
BARS: Final = sorted(set[str]().union(*(bars for bars, _ in BENCHMARKS)))


def main(
    only: Annotated[str, typer.Option(help=f"Bars to measure, separated by commas: {', '.join(BARS)}.")] = ",".join(
        BARS
    ),
    scale: Annotated[Literal["small", "full"], typer.Option(help="full: under ten minutes; small: a minute.")] = "full",
    output: Annotated[
        Path | None,
        typer.Option(help="JSON file. Default: that of this release, if all bars are measured at full scale."),
    ] = None,
) -> None:
    """Measure the product and the limits of its parts in one run, on temporary servers."""
    wanted = frozenset(only.upper().split(","))
    if not wanted <= set(BARS):
        raise typer.BadParameter(f"known are {', '.join(BARS)}", param_hint="--only")
    progress = Console(stderr=True)
    started_at = time.monotonic()
    size = FULL if scale == "full" else SMALL
    with own_servers(progress.print) as servers:
        results = list(_results(servers, size, wanted, progress))
        found = report.document(results, servers, size, time.monotonic() - started_at)
    report.show(Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH), found)
    if output is None and size is FULL and wanted == set(BARS):
        output = Path(__file__).parent / "results" / f"{found['release']}.json"
    if output is not None:
        report.write(output, found)


def _results(servers: Servers, scale: Scale, wanted: frozenset[str], progress: Console) -> Iterator[Result]:
    progress.print("Warming up the broker")
    warm_up_broker(servers, scale)
    for bars, benchmark in BENCHMARKS:
        if bars & wanted:
            progress.print(f"Measuring {', '.join(sorted(bars & wanted))}")
            yield from benchmark(servers, scale, bars & wanted)


if __name__ == "__main__":
    typer.run(main)
