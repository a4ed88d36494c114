"""The values that benchmarks measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median, quantiles
from typing import Any, Literal

Database = Literal["postgresql", "sqlite"]
Unit = Literal["k/s", "ms", "s", "µs", "MiB", "a minute", "ms/s", "times"]
Scalar = str | int | float | bool
Settings = Mapping[str, Scalar | Mapping[str, Scalar]]


class NotRun(Exception):
    """A benchmark cannot be run on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: records, duration, and the summed peak memory of its processes."""

    records: int
    seconds: float
    memory_bytes: int = 0

    @property
    def thousands_a_second(self) -> float:
        """The rate, in thousands of records per second."""
        return self.records / self.seconds / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The measurements of a bar: subject and limit from the same benchmark run, in order."""

    bar: str
    what: str
    against: str = ""
    """What the limit is; empty without a limit."""
    unit: Unit
    subject: Sequence[float]
    limit: Sequence[float] = ()
    at_least: float | None = None
    """The required ratio of subject to limit."""
    ratio_at_most: float | None = None
    """The required upper bound of that ratio, where less is better."""
    at_most: float | None = None
    """The required upper bound of the subject."""
    memory_bytes: int = 0
    """The highest summed peak memory of the subject's processes in a run."""
    settings: Settings = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further figures, for JSON; those under "shown" and the "tables" are printed below the results."""

    @property
    def ratio(self) -> float | None:
        """Median of the subject divided by the median of the limit; None without a limit."""
        return median(self.subject) / median(self.limit) if self.limit else None

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        if self.at_most is not None:
            return median(self.subject) <= self.at_most
        if self.ratio_at_most is not None and self.ratio is not None:
            return self.ratio <= self.ratio_at_most
        return self.at_least is None or self.ratio is None or self.ratio >= self.at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The size of a measurement."""

    name: Literal["tiny", "small", "full"]
    customers: int
    """For P1, P2, P5 and P6."""
    rows: int
    """For P8 and P9."""
    warm_up: int
    """Records before the clock starts."""
    runs: int
    """Runs, whose median counts."""
    stores: int
    """For benchmarks under steady load: the last is on PostgreSQL where there are three."""
    databases: tuple[Database, ...]
    """For S2, P4 and P10."""
    windows: int
    """Windows of steady load, whose median counts."""
    window_seconds: float
    warm_up_seconds: float
    """Steady load before the first window: the broker's compiler is half of a short run."""
    idle_seconds: float
    """How long idle processes are measured."""
    rebalancing_rounds: int
    """For P11."""
    batch_sizes: tuple[int, ...]
    """For S1 and S2."""
    batches_max: int
    """For S1 and S2: batches of each size at most."""
    calm_seconds: float
    """For C1: from the start of the channel until it is idle."""
    idle_channel_seconds: float
    """For C1."""
    replicas: int
    """For C2."""
    resync_customers: tuple[int, ...]
    """For P4 and P10: the customers of each resync, ascending."""
    channels: int
    """For J3."""


FULL = Scale(
    name="full",
    customers=200_000,
    rows=100_000,
    warm_up=2_000,
    runs=3,
    stores=3,
    databases=("postgresql", "sqlite"),
    windows=3,
    window_seconds=15.0,
    warm_up_seconds=40.0,
    idle_seconds=15.0,
    rebalancing_rounds=2,
    batch_sizes=(1, 2, 4, 8, 16, 17, 32, 64, 100, 150, 200, 400, 1_000, 2_000, 5_000, 10_000),
    batches_max=400,
    calm_seconds=10.0,
    idle_channel_seconds=180.0,
    replicas=100,
    resync_customers=(100_000, 1_000_000),
    channels=10_000,
)
SMALL = Scale(
    name="small",
    customers=5_000,
    rows=5_000,
    warm_up=500,
    runs=1,
    stores=3,
    databases=("postgresql", "sqlite"),
    windows=1,
    window_seconds=2.0,
    warm_up_seconds=1.0,
    idle_seconds=1.0,
    rebalancing_rounds=1,
    batch_sizes=(1, 16, 17, 1_000),
    batches_max=20,
    calm_seconds=2.0,
    idle_channel_seconds=5.0,
    replicas=5,
    resync_customers=(2_000, 4_000),
    channels=1_000,
)
TINY = replace(
    SMALL,
    name="tiny",
    stores=1,
    databases=("sqlite",),
    customers=500,
    rows=500,
    warm_up=50,
    window_seconds=0.5,
    warm_up_seconds=0.2,
    idle_seconds=0.2,
    batch_sizes=(1, 17),
    batches_max=4,
    calm_seconds=0.2,
    idle_channel_seconds=0.5,
    resync_customers=(200,),
    channels=20,
)
"""For tests: it shows that the benchmarks work, not how fast anything is."""


def rates(runs: Sequence[Run]) -> list[float]:
    """The rates of these runs."""
    return [run.thousands_a_second for run in runs]


def memory_peak(runs: Sequence[Run]) -> int:
    """The highest memory of these runs."""
    return max(run.memory_bytes for run in runs)


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile of these values."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
