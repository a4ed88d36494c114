"""C2: the broker's CPU for each delivered snapshot, where a hundred replicas read the topic `customers`.

    python -m benchmarks.replicas COUNT

is the process of the replicas: it opens this many readers as distribution does, prints a line, reads until its stdin
ends, and prints how many records they received.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from threading import Thread
from typing import Final

from benchmarks.cpu import KAFKA, Processes, spent
from benchmarks.customers import snapshots
from benchmarks.filling import Transactions
from benchmarks.measuring import Result, Scale
from benchmarks.processes import started
from benchmarks.servers import Servers
from benchmarks.stage import PARTITIONS, stage
from tenten.consumers.channel.distribution.snapshot_stream import FETCH_BYTES_MIN, FETCH_WAIT_MS
from tenten.kafka.assigned_reader import AssignedReader
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.settings import load_settings
from tenten.schemas.topics import CUSTOMERS

BROKER_US_MAX: Final = 12.0

_STORE: Final = "store"
_TRANSACTIONS_A_SECOND: Final = 20
_SNAPSHOTS: Final = 5
"""In each transaction."""
_DRAIN_SECONDS: Final = 2.0
_ROUND_SECONDS: Final = 0.05


def replicas(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """C2."""
    command = [sys.executable, "-m", "benchmarks.replicas", str(scale.replicas)]
    warm_up = round(min(scale.warm_up_seconds, scale.window_seconds) * _TRANSACTIONS_A_SECOND)
    counted = round(scale.window_seconds * _TRANSACTIONS_A_SECOND)
    with (
        stage(servers, {_STORE: "sqlite"}) as on,
        Transactions(on) as transactions,
        started(on, command, converses=True) as process,
    ):
        process.receive()
        processes = Processes(servers)
        _commit_at_pace(transactions, warm_up, seed=1)
        before = processes.sample()
        _commit_at_pace(transactions, counted, seed=2)
        time.sleep(_DRAIN_SECONDS)
        used = spent(before, processes.sample())
        process.end_input()
        received = process.receive()
    expected = (warm_up + counted) * _SNAPSHOTS * scale.replicas
    assert received == expected, f"the replicas received {received} snapshots of {expected}"
    yield Result(
        bar="C2",
        what=f"CPU of the broker for each snapshot delivered to {scale.replicas} replicas",
        unit="µs",
        subject=[1000 * used.cpu_ms.get(KAFKA, 0.0) / (counted * _SNAPSHOTS * scale.replicas)],
        at_most=BROKER_US_MAX,
        settings={
            "replicas": scale.replicas,
            "transactions a second": _TRANSACTIONS_A_SECOND,
            "snapshots in each": _SNAPSHOTS,
            "seconds": scale.window_seconds,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "fetch.min.bytes": FETCH_BYTES_MIN,
        },
    )


def _commit_at_pace(transactions: Transactions, count: int, seed: int) -> None:
    records = snapshots(count * _SNAPSHOTS, 1, seed=seed)
    begin_at = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begin_at + number / _TRANSACTIONS_A_SECOND - time.monotonic()))
        transactions.commit(list(islice(records, _SNAPSHOTS)))


# The process of the replicas.


def main(count: str) -> None:
    """Read with this many readers until stdin ends."""
    settings = load_settings()
    topic, group = settings.topic(CUSTOMERS), settings.channel_group(_STORE)
    begin = dict.fromkeys(range(PARTITIONS), 0)
    with ExitStack() as stack:
        readers = [
            stack.enter_context(
                AssignedReader(
                    settings, topic, group, begin, fetch_wait_ms=FETCH_WAIT_MS, fetch_bytes_min=FETCH_BYTES_MIN
                )
            )
            for _ in range(int(count))
        ]
        ended = Thread(target=sys.stdin.read, daemon=True)
        ended.start()
        print(json.dumps(count), flush=True)
        received, last_round = 0, False
        while not last_round:
            last_round = not ended.is_alive()
            received += sum(len(reader.read(BatchLimits(), 0.0).keys) for reader in readers)
            time.sleep(_ROUND_SECONDS)
        print(json.dumps(received), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
