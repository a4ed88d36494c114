"""R1 and R2: what it costs that every record is signed and checked. The same run with `require` and `off`, in turns.

R1 is P5, R2 is P7: how many new customers of a backlog headquarters numbers, and what a create costs under steady load.
"""

from collections.abc import Iterator
from typing import Final

from benchmarks.cpu import BENCHMARK
from benchmarks.headquarters import new_customers
from benchmarks.latency import CREATES_A_SECOND, stores
from benchmarks.measuring import Result, Run, Scale, memory_peak, percentile, rates
from benchmarks.servers import Servers
from benchmarks.stage import Authentication
from benchmarks.store_load import Window, store_load

AT_LEAST_R1: Final = 0.95
AT_MOST_R2: Final = 1.05
_MODES: Final[tuple[Authentication, Authentication]] = ("off", "require")


def authenticity(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """R1 and R2."""
    if "R1" in bars:
        yield _backlog(servers, scale)
    if "R2" in bars:
        yield from _steady_load(servers, scale)


def _backlog(servers: Servers, scale: Scale) -> Result:
    runs: dict[Authentication, list[Run]] = {mode: [] for mode in _MODES}
    for _ in range(scale.runs):
        for mode in _MODES:
            runs[mode].append(new_customers(servers, scale, processes=1, continuous=True, authentication=mode))
    return Result(
        bar="R1",
        what="headquarters, new customers, every record signed and checked",
        against="the same without signatures",
        unit="k/s",
        subject=rates(runs["require"]),
        limit=rates(runs["off"]),
        at_least=AT_LEAST_R1,
        memory_bytes=memory_peak(runs["require"]),
        settings={"events": scale.customers},
    )


def _steady_load(servers: Servers, scale: Scale) -> Iterator[Result]:
    windows = {mode: _windows(servers, scale, mode) for mode in _MODES}
    settings = {
        "creates a second": CREATES_A_SECOND,
        "windows": scale.windows,
        "seconds a window": scale.window_seconds,
    }
    what = f"{CREATES_A_SECOND}/s over {len(stores(scale))} stores, every record signed and checked"
    medians = {mode: [percentile(window.milliseconds, 50) for window in windows[mode]] for mode in _MODES}
    cpu = {mode: [_cpu_ms(window) / window.creates for window in windows[mode]] for mode in _MODES}
    for name, figures in (("create until its number is in the store, median", medians), ("CPU of a create", cpu)):
        yield Result(
            bar="R2",
            what=f"{name}, {what}",
            against="the same without signatures",
            unit="ms",
            subject=figures["require"],
            limit=figures["off"],
            ratio_at_most=AT_MOST_R2,
            settings=settings,
        )


def _windows(servers: Servers, scale: Scale, mode: Authentication) -> list[Window]:
    with store_load(servers, stores(scale), authentication=mode) as load:
        load.warm_up(CREATES_A_SECOND, scale.warm_up_seconds)
        return [load.window(CREATES_A_SECOND, scale.window_seconds) for _ in range(scale.windows)]


def _cpu_ms(window: Window) -> float:
    """The CPU of all processes but the benchmark's own."""
    return sum(ms for kind, ms in window.spent.cpu_ms.items() if kind != BENCHMARK)
