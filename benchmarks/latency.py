"""P7, P7a, P7b: how long a new customer is pending under a steady load, and what it costs.

Every third store is on PostgreSQL, the others are on SQLite. `store_load.py` says how the load is made and how times
are read afterwards. The broker is warmed up at the measured rate; then there are three windows, whose median counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any, Final

from benchmarks.cpu import BENCHMARK, Spent
from benchmarks.kafka_legs import LIMIT_SETTINGS, kafka_legs
from benchmarks.measuring import Database, Result, Scale, percentile
from benchmarks.servers import Servers
from benchmarks.store_load import CHANNELS, StoreLoad, Window, store_load

P7_MS: Final = (15.0, 45.0)
"""The median and the 99th percentile at most, at 100 creates a second in three stores."""
P7_CPU_MS: Final = 12.0
P7A_MS: Final[Mapping[int, tuple[float, float]]] = {10: (12.0, 25.0), 300: (35.0, 150.0)}
P7B_MS: Final = (25.0, 80.0)
P7B_IDLE_MS: Final = 2.0

CREATES_A_SECOND: Final = 100
_TWELVE: Final = "houston seattle boston austin tacoma salem dallas yakima lowell waco everett quincy"
TWELVE_STORES: Final[Mapping[str, Database]] = {
    name: "postgresql" if number % 3 == 2 else "sqlite" for number, name in enumerate(_TWELVE.split())
}


def stores(scale: Scale) -> Mapping[str, Database]:
    """The stores of most benchmarks under steady load: three, of which the last is on PostgreSQL."""
    return dict(islice(TWELVE_STORES.items(), scale.stores))


def latency(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """P7, P7a, P7b: median, 99th percentile and CPU of a create, and what idle processes cost."""
    databases = stores(scale)
    rates = {"P7": [CREATES_A_SECOND], "P7a": list(P7A_MS)}
    wanted = [(bar, rate) for bar, bar_rates in rates.items() if bar in bars for rate in bar_rates]
    if wanted:
        with store_load(servers, databases) as load:
            idle = load.idle(scale.calm_seconds, scale.idle_seconds) if "P7" in bars else None
            for bar, rate in wanted:
                at_most = P7_MS if bar == "P7" else P7A_MS[rate]
                yield from _measured(load, scale, bar=bar, rate=rate, at_most=at_most, stores=databases)
        if idle is not None:
            yield _idle("P7", idle, databases)
    if "P7b" in bars:
        with store_load(servers, TWELVE_STORES) as load:
            idle = load.idle(scale.calm_seconds, scale.idle_seconds)
            yield from _measured(load, scale, bar="P7b", rate=CREATES_A_SECOND, at_most=P7B_MS, stores=TWELVE_STORES)
        yield _idle("P7b", idle, TWELVE_STORES)


def _measured(
    load: StoreLoad, scale: Scale, *, bar: str, rate: int, at_most: tuple[float, float], stores: Mapping[str, Database]
) -> Iterator[Result]:
    load.warm_up(rate, scale.warm_up_seconds)
    windows = [load.window(rate, scale.window_seconds) for _ in range(scale.windows)]
    memory = sum(process.memory_peak_bytes() for process in load.processes)
    limit = kafka_legs(load.on.servers, rate, scale.window_seconds) if bar == "P7" else []
    settings = _settings(scale, rate, stores)
    what = f"create until its number is in the store, {rate}/s over {len(stores)} stores"
    for name, percent, bound in (("median", 50, at_most[0]), ("99th percentile", 99, at_most[1])):
        yield Result(
            bar=bar,
            what=f"{what}, {name}",
            against="the Kafka legs alone: produce, transaction, consume" if limit else "",
            unit="ms",
            subject=[percentile(window.milliseconds, percent) for window in windows],
            limit=[percentile(limit, percent)] if limit else (),
            at_most=bound,
            memory_bytes=memory,
            settings={**settings, **(LIMIT_SETTINGS if limit else {})},
            details={"creates a second": rate, "percentile": percent},
        )
    yield Result(
        bar=bar,
        what=f"CPU of a create, all processes, {rate}/s over {len(stores)} stores",
        unit="ms",
        subject=[_sum(window.spent.cpu_ms) / window.creates for window in windows],
        at_most=P7_CPU_MS if bar == "P7" else None,
        settings=settings,
        details={"shown": _by_kind(windows), "creates a second": rate},
    )


def _settings(scale: Scale, rate: int, stores: Mapping[str, Database]) -> dict[str, Any]:
    kinds = list(stores.values())
    return {
        "creates a second": rate,
        "stores": f"{kinds.count('postgresql')} on postgresql, {kinds.count('sqlite')} on sqlite",
        "windows": scale.windows,
        "seconds a window": scale.window_seconds,
        "seconds of warm-up": scale.warm_up_seconds,
        "processes": "headquarters run; channel run and a till for each store",
    }


def _by_kind(windows: Sequence[Window]) -> dict[str, Any]:
    """Medians of the windows: CPU and run-queue wait of a create by kind of process, the rate, and other programs."""
    kinds = sorted({kind for window in windows for kind in window.spent.cpu_ms} - {BENCHMARK})
    return {
        "CPU ms a create": {
            kind: round(median(window.spent.cpu_ms.get(kind, 0.0) / window.creates for window in windows), 2)
            for kind in kinds
        },
        "run-queue wait ms a create": {
            kind: round(median(window.spent.waited_ms.get(kind, 0.0) / window.creates for window in windows), 2)
            for kind in kinds
        },
        "creates a second, reached": round(median(window.rate for window in windows), 1),
        **other_programs([window.spent for window in windows]),
    }


def _idle(bar: str, idle: Spent, stores: Mapping[str, Database]) -> Result:
    """The CPU of idle processes: of all for P7, of a store's process for P7b."""
    by_kind = {kind: round(ms / idle.seconds, 1) for kind, ms in sorted(idle.cpu_ms.items()) if kind != BENCHMARK}
    a_store = idle.cpu_ms[CHANNELS] / idle.seconds / len(stores)
    return Result(
        bar=bar,
        what="idle CPU of a store's process, twelve stores" if bar == "P7b" else "idle CPU of all processes",
        unit="ms/s",
        subject=[a_store if bar == "P7b" else _sum(idle.cpu_ms) / idle.seconds],
        at_most=P7B_IDLE_MS if bar == "P7b" else None,
        settings={"stores": len(stores), "seconds": round(idle.seconds, 1)},
        details={"shown": {"idle CPU ms a second": by_kind, **other_programs([idle])}},
    )


def other_programs(spent: Sequence[Spent]) -> dict[str, Any]:
    """What programs that are not measured used meanwhile, and whether that makes the machine busy."""
    return {
        "other programs, CPU ms a second": [round(window.others_ms_a_second) for window in spent],
        "machine busy with other programs": any(window.busy for window in spent),
    }


def _sum(cpu_ms: Mapping[str, float]) -> float:
    """The CPU of all processes but the benchmark's own."""
    return sum(ms for kind, ms in cpu_ms.items() if kind != BENCHMARK)
