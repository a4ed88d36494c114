"""`python -m benchmarks`: measure, write each result as soon as it is there, print the table."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console

from benchmarks import pictures, report
from benchmarks.authenticity import authenticity
from benchmarks.batch_sizes import batch_sizes
from benchmarks.debezium import against_debezium
from benchmarks.decoding import decoding
from benchmarks.distribution import into_postgresql, into_sqlite
from benchmarks.headquarters import headquarters, warm_up_broker
from benchmarks.http_creates import http_creates
from benchmarks.idle_channel import idle_channel
from benchmarks.joining import joining
from benchmarks.latency import latency
from benchmarks.many_channels import many_channels
from benchmarks.measuring import FULL, SMALL, NotRun, Result, Scale
from benchmarks.rebalancing import rebalancing
from benchmarks.relay import relay
from benchmarks.replicas import replicas
from benchmarks.resyncing import resyncing
from benchmarks.servers import Servers, own_servers
from benchmarks.starting import starting
from benchmarks.transactions import transactions
from benchmarks.ways_out import ways_out

Benchmark = Callable[[Servers, Scale, frozenset[str]], Iterator[Result]]

BENCHMARKS: Final[tuple[tuple[frozenset[str], Benchmark], ...]] = (
    (frozenset({"E1"}), decoding),
    (frozenset({"L1"}), starting),
    (frozenset({"P7", "P7a", "P7b"}), latency),
    (frozenset({"P11"}), rebalancing),
    (frozenset({"S1", "S2"}), batch_sizes),
    (frozenset({"C1"}), idle_channel),
    (frozenset({"C2"}), replicas),
    (frozenset({"P1", "P2"}), into_postgresql),
    (frozenset({"P3"}), against_debezium),
    (frozenset({"P5", "P6"}), headquarters),
    (frozenset({"R1", "R2"}), authenticity),
    (frozenset({"P8"}), relay),
    (frozenset({"P9"}), into_sqlite),
    (frozenset({"O1", "O2", "O3"}), transactions),
    (frozenset({"P4", "P10"}), resyncing),
    (frozenset({"A1", "A2", "A3"}), ways_out),
    (frozenset({"J1", "J2"}), joining),
    (frozenset({"J3"}), many_channels),
    (frozenset({"W1"}), http_creates),
)
_THROUGHPUT: Final = frozenset({"P1", "P2", "P5", "P6", "P8", "P9", "O1", "O3", "R1"})
"""The bars before which the broker is warmed up with large batches."""
_FILE_WIDTH: Final = 160
BARS: Final = sorted({bar for bars, _ in BENCHMARKS for bar in bars}, key=report.order)


def main(
    only: Annotated[str, typer.Option(help=f"Bars to measure, separated by commas: {', '.join(BARS)}.")] = ",".join(
        BARS
    ),
    *,
    scale: Annotated[Literal["small", "full"], typer.Option(help="full: up to an hour; small: minutes.")] = "full",
    output: Annotated[
        Path | None,
        typer.Option(help="JSON file, whose other bars are kept. Default at full scale: that of this release."),
    ] = None,
    customers: Annotated[
        int | None, typer.Option(help="Customers, for P4, P10, A1 to A3 and J1. Default: 100,000 and 1,000,000.", min=1)
    ] = None,
    kafka: Annotated[
        list[str] | None,
        typer.Option(help="A property NAME=VALUE of the product's Kafka clients, such as session.timeout.ms=6000."),
    ] = None,
    broker: Annotated[list[str] | None, typer.Option(help="A property NAME=VALUE of the broker.")] = None,
) -> None:
    """Measure the product and the limits of its parts in one run, on temporary servers."""
    wanted = wanted_bars(only)
    progress = Console(stderr=True)
    size = FULL if scale == "full" else SMALL
    if customers is not None:
        size = replace(size, resync_customers=(customers,))
    is_committed = output is None and size is FULL and not kafka and not broker
    if is_committed:
        output = Path(__file__).parent / "results" / f"{report.release()}.json"
    with own_servers(progress.print, _properties(kafka), _properties(broker)) as servers:
        found = report.Report(output, servers, size)
        succeeded = measure(servers, size, wanted, found, progress)
    report.show(Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH), found)
    if is_committed and output is not None:
        pictures.write(output)
    if not succeeded:
        raise typer.Exit(1)


def wanted_bars(only: str) -> frozenset[str]:
    """The bars with these names, in any case, separated by commas. Raises: `typer.BadParameter`."""
    given = {name.strip().lower() for name in only.split(",")}
    wanted = frozenset(bar for bar in BARS if bar.lower() in given)
    if len(wanted) != len(given):
        raise typer.BadParameter(f"known are {', '.join(BARS)}", param_hint="--only")
    return wanted


def _properties(words: list[str] | None) -> Mapping[str, str]:
    if not all("=" in word for word in words or []):
        raise typer.BadParameter("write a property as NAME=VALUE")
    return dict(word.split("=", 1) for word in words or [])


def measure(servers: Servers, scale: Scale, wanted: frozenset[str], found: report.Report, progress: Console) -> bool:
    """Measure these bars; False if a benchmark failed."""
    is_warm = failed = False
    for bars, benchmark in BENCHMARKS:
        measured = bars & wanted
        if not measured:
            continue
        if measured & _THROUGHPUT and not is_warm and scale.name != "tiny":
            progress.print("Warming up the broker")
            warm_up_broker(servers, scale)
            is_warm = True
        progress.print(f"Measuring {', '.join(sorted(measured))}")
        try:
            found.add(measured, list(benchmark(servers, scale, measured)))
        except NotRun as reason:
            found.not_run(measured, f"not run: {reason}")
        except Exception as error:  # noqa: BLE001 - reported, and the other benchmarks are measured
            progress.print_exception()
            found.not_run(measured, f"failed: {error}".splitlines()[0])
            failed = True
    return not failed


if __name__ == "__main__":
    typer.run(main)
