"""The killer: a seeded sequence of faults, from outside, while everything works.

Processes are killed and frozen, servers restarted, killed and frozen, the stores' network is cut, frozen and slowed.
What a fault leaves behind, such as a frozen process, is repaired some seconds later, while other faults go on.
"""

import heapq
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from tests.faults.connection_proxy import State
from tests.faults.soak_run.company import Company
from tests.faults.soak_run.servers import BROKER_FROZEN_SECONDS_MAX
from tests.forked import ForkedProcess

PAUSE_SECONDS: Final = 4.0
"""Between two faults, on average."""

PROCESS_FROZEN_SECONDS_MAX: Final = 15.0
"""Longer than a session lasts: peers take the partitions over, and the frozen worker returns as a zombie."""

NETWORK_LOST_SECONDS_MAX: Final = 20.0
CALM_SECONDS: Final = 10.0
"""After a server was restarted: work goes on between two outages."""

_BROKER_GRACE_SECONDS: Final = 15.0
_STEP_SECONDS: Final = 0.1

FAULTS: Final = {
    "process killed": 34,
    "process frozen": 30,
    "broker stopped": 4,
    "broker killed": 4,
    "broker frozen": 8,
    "PostgreSQL stopped": 4,
    "PostgreSQL crashed": 4,
    "network cut": 5,
    "network frozen": 4,
    "network slow": 3,
}
"""The faults, with their shares in percent."""

_RESTARTS: Final = ("broker stopped", "broker killed", "PostgreSQL stopped", "PostgreSQL crashed")


@dataclass(slots=True, kw_only=True)
class Killer:
    """Does harm to the company, one fault after another."""

    company: Company
    rng: random.Random
    _repairs: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    """What is to be repaired, and when."""
    _numbers: "count[int]" = field(default_factory=count)

    def rage_until(self, end: float) -> None:
        """Do harm until this time of the monotonic clock; then repair everything."""
        try:
            while time.monotonic() < end:
                calm = CALM_SECONDS if self._strike() in _RESTARTS else 0.0
                self._pause(min(calm + self.rng.expovariate(1 / PAUSE_SECONDS), end - time.monotonic()))
        finally:
            self._repair_until(None)

    def _strike(self) -> str:
        """Do one fault; its name."""
        (fault,) = self.rng.choices([*FAULTS], [*FAULTS.values()])
        servers = self.company.servers
        match fault:
            case "process killed":
                victims = [program for program in self.company.programs.values() if not program.is_spared]
                self.rng.choice(victims).kill()
            case "process frozen":
                self._freeze()
            case "broker stopped" | "broker killed":
                servers.restart_broker(grace_seconds=_BROKER_GRACE_SECONDS if fault == "broker stopped" else 0)
            case "broker frozen":
                servers.freeze_broker(self.rng.uniform(0.5, BROKER_FROZEN_SECONDS_MAX))
            case "PostgreSQL stopped":
                servers.restart_postgresql()
            case "PostgreSQL crashed":
                servers.crash_postgresql()
            case "network cut":
                self._lose_network("cut")
            case "network frozen":
                self._lose_network("frozen")
            case _:
                self._lose_network("slow")
        self.company.faults[fault] += 1
        return fault

    def _freeze(self) -> None:
        process = self.rng.choice([*self.company.programs.values()]).freeze()
        if process is not None:
            self._repair_in(self.rng.uniform(1.0, PROCESS_FROZEN_SECONDS_MAX), lambda: _thaw(process))

    def _lose_network(self, state: State) -> None:
        network = self.company.servers.network
        network.become(state)
        self._repair_in(self.rng.uniform(1.0, NETWORK_LOST_SECONDS_MAX), lambda: network.become("intact"))

    def _repair_in(self, seconds: float, repair: Callable[[], None]) -> None:
        heapq.heappush(self._repairs, (time.monotonic() + seconds, next(self._numbers), repair))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._repair_until(now)
            time.sleep(_STEP_SECONDS)

    def _repair_until(self, now: float | None) -> None:
        """Repair what is due; everything, if None."""
        while self._repairs and (now is None or self._repairs[0][0] <= now):
            heapq.heappop(self._repairs)[2]()


def _thaw(process: ForkedProcess) -> None:
    process.send_signal(signal.SIGCONT)
