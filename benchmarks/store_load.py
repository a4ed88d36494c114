"""Stores under a steady load of creates, as real processes: headquarters, a channel process and a till for each store.

Nobody watches while the load runs. Afterwards the times are read from what is written anyway. A customer's time begins
with `created_at` of its event in the outbox, which the till takes from the clock when `create_customer` is called. It
ends when the transaction that stores the account number has committed: its `settled_at`, which is taken from the clock
before that transaction writes, leads to the line of the channel's log that follows the commit. All clocks are the
machine's.
"""

import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from benchmarks.cpu import Processes, Sample, Spent, spent
from benchmarks.databases import observer
from benchmarks.measuring import Database
from benchmarks.processes import BenchmarkFailed, Process, started, tenten, wait_until
from benchmarks.servers import Servers
from benchmarks.stage import Authentication, Stage, stage
from benchmarks.till import Done, Order

CHANNELS: Final = "channel processes"
HEADQUARTERS: Final = "headquarters worker"
TILLS: Final = "tills"

_BEGIN_SECONDS: Final = 0.3
"""From the order until the tills begin together."""
_SYNC_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.25
_UNSETTLED: Final = "SELECT count(*) FROM outbox WHERE settled_at IS NULL"
_TIMES: Final = "SELECT created_at, settled_at, account_number FROM outbox ORDER BY sequence"
_SETTLED_EVENT: Final = re.compile(r"timestamp=(\S+) .*\bevent=replies_settled\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of steady load, after all its customers have their numbers."""

    creates: int
    rate: float
    """Creates a second that the tills reached."""
    milliseconds: Sequence[float]
    """Of each customer, from the begin of its create until its number is committed in its store."""
    spent: Spent


class StoreLoad:
    """Running stores and their tills."""

    def __init__(
        self, on: Stage, headquarters: Sequence[Process], channels: Mapping[str, Process], tills: Mapping[str, Process]
    ) -> None:
        self.on = on
        self.headquarters = list(headquarters)
        self.channels = channels
        self._tills = tills
        self._created = 0
        self._processes = Processes(on.servers)
        self._processes.add(HEADQUARTERS, [process.popen.pid for process in headquarters])
        self._processes.add(CHANNELS, [process.popen.pid for process in channels.values()])
        self._processes.add(TILLS, [process.popen.pid for process in tills.values()])

    @property
    def processes(self) -> list[Process]:
        """All processes of the product."""
        return [*self.headquarters, *self.channels.values()]

    def begin(self, per_second: float, seconds: float, sync_seconds: float = 0.0) -> Mapping[str, Order]:
        """Let the tills create customers, together at this rate (0: without a pause) for about this long."""
        stores = len(self._tills)
        count = max(1, round(per_second * seconds / stores)) if per_second else round(seconds)
        start_at = time.monotonic() + _BEGIN_SECONDS
        orders = {
            store: Order(
                first=self._created,
                count=count,
                start_at=start_at + (place / per_second if per_second else 0.0),
                interval_seconds=stores / per_second if per_second else 0.0,
                sync_seconds=sync_seconds,
            )
            for place, store in enumerate(self._tills)
        }
        self._created += count
        for store, order in orders.items():
            self._tills[store].send(asdict(order))
        return orders

    def done(self) -> Mapping[str, Done]:
        """Wait until every till has carried out its order."""
        return {store: done(process) for store, process in self._tills.items()}

    def wait_until_settled(self) -> None:
        """Wait until no event of a store is unsettled."""
        for store in self._tills:
            with observer(self.on.channel_url(store)) as ask:
                wait_until(lambda: ask(_UNSETTLED) == [(0,)], self.processes, _PAUSE_SECONDS)

    def warm_up(self, per_second: float, seconds: float) -> None:
        """Create customers whose times do not count."""
        self.begin(per_second, seconds)
        self.done()
        self.wait_until_settled()

    def first_customers(self) -> None:
        """Create a customer in every store, which shows that all processes work."""
        self.warm_up(len(self._tills), 1.0)

    def idle(self, calm_seconds: float, seconds: float) -> Spent:
        """What all processes spend while nobody creates anything, after a while of calm."""
        time.sleep(calm_seconds)
        before = self.sample()
        time.sleep(seconds)
        return spent(before, self.sample())

    def sample(self) -> Sample:
        """The counters of all processes."""
        return self._processes.sample()

    def window(self, per_second: float, seconds: float) -> Window:
        """Create customers at this rate for this long, and wait for their numbers."""
        since = datetime.now(UTC)
        before = self.sample()
        orders = self.begin(per_second, seconds)
        answers = self.done().values()
        self.wait_until_settled()
        after = self.sample()
        creates = sum(order.count for order in orders.values())
        lasted = max(answer.ended_at for answer in answers) - min(answer.begun_at for answer in answers)
        milliseconds = [value for store in self._tills for value in self.milliseconds(store, since)]
        if len(milliseconds) != creates:
            raise BenchmarkFailed(f"{creates} customers were created, {len(milliseconds)} have an account number")
        return Window(creates=creates, rate=creates / lasted, milliseconds=milliseconds, spent=spent(before, after))

    def sync_window(self, creates: float) -> list[float]:
        """Milliseconds of synchronous creates, this many of each till, one after the other."""
        self.begin(0.0, creates, sync_seconds=_SYNC_SECONDS)
        return [value for answer in self.done().values() for value in answer.milliseconds]

    def milliseconds(self, store: str, since: datetime) -> list[float]:
        """Of each customer that this store has created since then, the time until its number was committed."""
        commits = _commits(self.channels[store])
        with observer(self.on.channel_url(store)) as ask:
            rows = [(_time(created), _time(settled), number) for created, settled, number in ask(_TIMES)]
        return [
            1000 * (_commit_after(settled, commits) - created)
            for created, settled, number in rows
            if created >= since.timestamp() and number is not None
        ]


@contextmanager
def store_load(
    servers: Servers,
    databases: Mapping[str, Database],
    headquarters_processes: int = 1,
    authentication: Authentication | None = None,
) -> Iterator[StoreLoad]:
    """Run headquarters, the stores and their tills; every store has had its first customer."""
    with stage(servers, databases, authentication=authentication) as on, ExitStack() as running:
        headquarters = [running.enter_context(tenten(on, "headquarters", "run")) for _ in range(headquarters_processes)]
        channels = {store: running.enter_context(tenten(on, "channel", "run", store)) for store in databases}
        tills = {store: running.enter_context(till(on, store)) for store in databases}
        load = StoreLoad(on, headquarters, channels, tills)
        load.first_customers()
        yield load


@contextmanager
def till(on: Stage, store: str) -> Iterator[Process]:
    """A till that is ready for orders."""
    with started(on, [sys.executable, "-m", "benchmarks.till", store], converses=True) as process:
        process.receive()
        yield process


def done(process: Process) -> Done:
    """Wait for a till's answer to its oldest order."""
    return Done(**process.receive())


def _commits(channel: Process) -> list[float]:
    """When the channel has logged that replies are committed, ascending."""
    lines = channel.log.read_text(errors="replace").splitlines()
    matches = (_SETTLED_EVENT.search(line) for line in lines)
    return sorted(_time(match.group(1)) for match in matches if match)


def _commit_after(settled_at: float, commits: Sequence[float]) -> float:
    """The commit that follows; the time itself if the log has none."""
    place = bisect_left(commits, settled_at)
    return commits[place] if place < len(commits) else settled_at


def _time(value: datetime | str) -> float:
    """Seconds since the epoch, from PostgreSQL's value, SQLite's text or a line of a log."""
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).timestamp()
