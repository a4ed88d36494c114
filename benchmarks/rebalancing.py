"""P11: the longest time that a customer is pending while a headquarters worker joins, leaves or is killed.

Two workers under a steady load. In each round a third one joins, one of them leaves (SIGTERM), and one is killed
(SIGKILL); before the next round a new one replaces it. `--kafka NAME=VALUE` tries other settings of the workers' Kafka
clients, and `--broker NAME=VALUE` other settings of the broker.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from typing import Final

from benchmarks.latency import stores
from benchmarks.measuring import Result, Scale
from benchmarks.processes import Process, stop, tenten
from benchmarks.servers import Servers
from benchmarks.store_load import StoreLoad, store_load

CHANGE_SECONDS_MAX: Final = 2.0
KILL_SECONDS_MAX: Final = 8.0

CREATES_A_SECOND: Final = 50
_WORKERS: Final = 2
_SECONDS_MAX: Final = 10.0
"""Of steady load, before the first change and around each."""
_BEFORE_SECONDS_MAX: Final = 2.0
"""Steady load before the change."""
_MORE_SECONDS: Final = 2.0
_BARS: Final = {"joins": CHANGE_SECONDS_MAX, "leaves": CHANGE_SECONDS_MAX, "is killed": KILL_SECONDS_MAX}


def rebalancing(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """P11: the longest wait for each kind of change, and with none."""
    waits: dict[str, list[float]] = {change: [] for change in _BARS}
    with store_load(servers, stores(scale), _WORKERS) as load, ExitStack() as running:
        load.warm_up(CREATES_A_SECOND, min(scale.warm_up_seconds, _SECONDS_MAX))
        steady = _longest_wait(load, scale, lambda: None)
        for number in range(scale.rebalancing_rounds):
            if number > 0:
                _join(load, running)
                load.warm_up(CREATES_A_SECOND, _MORE_SECONDS)
            waits["joins"].append(_longest_wait(load, scale, lambda: _join(load, running)))
            waits["leaves"].append(_longest_wait(load, scale, lambda: _leave(load)))
            waits["is killed"].append(_longest_wait(load, scale, lambda: _kill(load)))
    for change, at_most in _BARS.items():
        yield Result(
            bar="P11",
            what=f"the longest wait of a customer, a headquarters worker {change}",
            against="the longest wait under the same load without a change",
            unit="s",
            subject=[max(waits[change])],
            limit=[steady],
            at_most=at_most,
            settings={
                "creates a second": CREATES_A_SECOND,
                "workers": _WORKERS,
                "stores": scale.stores,
                "seconds": min(scale.window_seconds, _SECONDS_MAX),
                "rounds": scale.rebalancing_rounds,
                "kafka": servers.client_properties,
                "broker": servers.broker_properties,
            },
            details={"shown": {f"seconds of each round, a worker {change}": [round(s, 2) for s in waits[change]]}},
        )


def _longest_wait(load: StoreLoad, scale: Scale, change: Callable[[], None]) -> float:
    """The longest wait of a customer in seconds, where this changes the workers early in a window of steady load."""
    since = datetime.now(UTC)
    seconds = min(scale.window_seconds, _SECONDS_MAX)
    load.begin(CREATES_A_SECOND, seconds)
    time.sleep(min(_BEFORE_SECONDS_MAX, seconds / 4))
    change()
    load.done()
    while not all(_has_partitions(worker) for worker in load.headquarters):
        load.begin(CREATES_A_SECOND, _MORE_SECONDS)
        load.done()
    load.wait_until_settled()
    return max(value for store in load.channels for value in load.milliseconds(store, since)) / 1000


def _join(load: StoreLoad, running: ExitStack) -> None:
    worker: AbstractContextManager[Process] = tenten(load.on, "headquarters", "run")
    load.headquarters.append(running.enter_context(worker))


def _leave(load: StoreLoad) -> None:
    stop(load.headquarters.pop(0).popen)


def _kill(load: StoreLoad) -> None:
    popen = load.headquarters.pop(0).popen
    popen.send_signal(signal.SIGKILL)
    popen.wait()


def _has_partitions(worker: Process) -> bool:
    """Whether the worker has logged that it was given partitions."""
    return b"partitions_assigned" in worker.log.read_bytes()
