"""S1 and S2: the CPU of a record over the size of its batch, at headquarters and in a channel.

Headquarters reads a backlog in batches of at most the size (`batch_records_max`). A channel receives transactions of
the size, with a pause after each; the broker does not collect them (`fetch.min.bytes`), and the channel's CPU at rest
is subtracted. The log says how large the batches really were. At a cliff a record costs much more than in batches of
the next smaller size.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from benchmarks.cpu import BENCHMARK, KAFKA, Processes, Spent, spent
from benchmarks.customers import CHANNELS, Record, events, snapshots
from benchmarks.databases import Ask, observer
from benchmarks.filling import Filling, Transactions
from benchmarks.headquarters import has_committed
from benchmarks.measuring import Database, Result, Scale
from benchmarks.processes import Process, tenten, wait_until
from benchmarks.servers import Servers
from benchmarks.stage import Stage, stage
from tenten.schemas.topics import ASYNC_CUSTOMERS

RISE_MAX: Final = 1.25

_STORE: Final = "store"
_SEED: Final = 2_000
"""Each size has customers of its own, by its place among the sizes; those of its warm-up follow a thousand later."""
_WARM_UP_SEEDS: Final = 500
_WARM_UP_RECORDS: Final = 1_000
_RECORDS: Final = 20_000
_BATCHES_MIN: Final = 4
_CHANNEL_BATCHES_MAX: Final = 40
_PAUSE_SECONDS: Final = 0.25
_SNAPSHOTS_A_SECOND: Final = 8_000
_NAMES: Final[Mapping[Database, str]] = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_COUNT: Final = "SELECT count(*) FROM customers"
_BATCH: Final = re.compile(r"event=(?:batch_synchronized|batch_applied)\b")


def batch_sizes(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """S1 at headquarters, S2 in a channel on either database."""
    if "S1" in bars:
        yield _result("S1", "headquarters", _headquarters(servers, scale))
    if "S2" in bars:
        for database in scale.databases:
            yield _result("S2", f"a channel on {_NAMES[database]}", _channel(servers, scale, database))


def _result(bar: str, where: str, points: Sequence[Mapping[str, Any]]) -> Result:
    costs = [max(1.0, _product_us(point["cpu_us"])) for point in points]
    return Result(
        bar=bar,
        what=f"cost of a record at {where}: the largest rise from a batch size to the next",
        unit="times",
        subject=[max((larger / smaller for smaller, larger in pairwise(costs)), default=1.0)],
        at_most=RISE_MAX,
        settings={"sizes": ", ".join(str(point["size"]) for point in points)},
        details={"curve": points, "where": where, "tables": [_table(where, points)]},
    )


def _product_us(cpu_us: Mapping[str, float]) -> float:
    """The cost without the broker."""
    return sum(value for kind, value in cpu_us.items() if kind != KAFKA)


def _table(where: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kinds = sorted({kind for point in points for kind in point["cpu_us"]})
    rows = [
        [point["size"], point["batch"], round(_product_us(point["cpu_us"])), *(point["cpu_us"][kind] for kind in kinds)]
        for point in points
    ]
    title = f"CPU of a record at {where}, in microseconds"
    return {"title": title, "columns": ["size", "real size", "without Kafka", *kinds], "rows": rows}


# S1.


def _headquarters(servers: Servers, scale: Scale) -> list[dict[str, Any]]:
    points = []
    with stage(servers, dict.fromkeys(CHANNELS, "sqlite")) as on:
        settings = on.file.read_text(encoding="utf-8")
        for place, size in enumerate(scale.batch_sizes):
            limited = settings.replace("[headquarters]\n", f"[headquarters]\nbatch_records_max = {size}\n")
            on.file.write_text(limited, encoding="utf-8")
            with tenten(on, "headquarters", "run") as process:
                points.append(_batches_at_headquarters(on, process, scale, size, _SEED + place))
    return points


def _batches_at_headquarters(on: Stage, process: Process, scale: Scale, size: int, seed: int) -> dict[str, Any]:
    count = size * _batch_count(scale, size)
    _filled(on, events(_warm_up(size), seed=seed + _WARM_UP_SEEDS)).release_and_wait(process)
    filled = _filled(on, events(count, seed=seed))
    processes = _processes(on, "headquarters worker", process)
    log_bytes = process.log.stat().st_size
    before = processes.sample()
    filled.release_and_wait(process)
    return _point(size, count, spent(before, processes.sample()), None, _logged_batches(process, log_bytes))


def _warm_up(size: int) -> int:
    """Records of the warm-up: ten batches where they are small."""
    return size * max(1, min(10, _WARM_UP_RECORDS // size))


def _batch_count(scale: Scale, size: int) -> int:
    return max(_BATCHES_MIN, min(scale.batches_max, _RECORDS // size))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backlog:
    """Events that headquarters does not see yet."""

    admin: AdminClient
    group: str
    filling: Filling

    def release_and_wait(self, process: Process) -> None:
        """Let headquarters see them, and wait until it has committed them all."""
        self.filling.release()
        offsets = self.filling.next_offsets
        wait_until(lambda: has_committed(self.admin, self.group, offsets), [process], _PAUSE_SECONDS)


def _filled(on: Stage, records: Iterator[Record]) -> _Backlog:
    return _Backlog(
        admin=AdminClient({"bootstrap.servers": on.servers.bootstrap_servers, "log_level": 3}),
        group=on.settings.group("headquarters"),
        filling=Filling(on.servers.bootstrap_servers, on.settings.topic(ASYNC_CUSTOMERS), records, "CustomerCreated"),
    )


# S2.


def _channel(servers: Servers, scale: Scale, database: Database) -> list[dict[str, Any]]:
    not_collecting = replace(servers, client_properties={**servers.client_properties, "fetch.min.bytes": "1"})
    with (
        stage(not_collecting, {_STORE: database}) as on,
        tenten(on, "channel", "run", _STORE) as process,
        observer(on.channel_url(_STORE)) as ask,
        Transactions(on) as transactions,
    ):
        load = _ChannelLoad(process=process, ask=ask, transactions=transactions)
        load.send(snapshots(1, 1, seed=_SEED - 1), 1)
        processes = _processes(on, "channel process", process)
        time.sleep(scale.calm_seconds)
        before = processes.sample()
        time.sleep(scale.idle_seconds)
        idle = spent(before, processes.sample())
        points = []
        for place, size in enumerate(scale.batch_sizes):
            count = size * min(_batch_count(scale, size), _CHANNEL_BATCHES_MAX)
            load.send(snapshots(_warm_up(size), 1, seed=_SEED + place + _WARM_UP_SEEDS), size)
            log_bytes = process.log.stat().st_size
            before = processes.sample()
            load.send(snapshots(count, 1, seed=_SEED + place), size)
            used = spent(before, processes.sample())
            points.append(_point(size, count, used, idle, _logged_batches(process, log_bytes)))
        return points


@dataclass(slots=True, kw_only=True)
class _ChannelLoad:
    """A running channel and the way to it."""

    process: Process
    ask: Ask
    transactions: Transactions
    customers: int = 0

    def send(self, records: Iterator[Record], size: int) -> None:
        """Commit the records in transactions of this size, with pauses; wait until the channel has them all."""
        while transaction := list(islice(records, size)):
            self.transactions.commit(transaction)
            self.customers += len(transaction)
            time.sleep(_PAUSE_SECONDS / 2 + size / _SNAPSHOTS_A_SECOND)
        wait_until(lambda: self.ask(_COUNT) == [(self.customers,)], [self.process], _PAUSE_SECONDS)


# Both.


def _processes(on: Stage, kind: str, process: Process) -> Processes:
    processes = Processes(on.servers)
    processes.add(kind, [process.popen.pid])
    return processes


def _point(size: int, count: int, used: Spent, idle: Spent | None, batches: int) -> dict[str, Any]:
    """The CPU of a record in microseconds by kind of process, without what the processes use at rest."""
    at_rest = {} if idle is None else {kind: ms / idle.seconds for kind, ms in idle.cpu_ms.items()}
    cpu_us = {
        kind: round(1000 * max(0.0, ms - at_rest.get(kind, 0.0) * used.seconds) / count, 1)
        for kind, ms in sorted(used.cpu_ms.items())
        if kind != BENCHMARK
    }
    return {"size": size, "batch": round(count / max(1, batches), 1), "records": count, "cpu_us": cpu_us}


def _logged_batches(process: Process, after_bytes: int) -> int:
    """How many batches the process has logged after this place in its log."""
    return len(_BATCH.findall(process.log.read_bytes()[after_bytes:].decode(errors="replace")))
