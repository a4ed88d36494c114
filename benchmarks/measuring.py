"""The values that benchmarks measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Scalar = str | int | float | bool
Settings = Mapping[str, Scalar | Mapping[str, Scalar]]


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
    against: str
    unit: Literal["k/s", "ms"]
    subject: Sequence[float]
    limit: Sequence[float]
    at_least: float | None = None
    """The required ratio of subject to limit."""
    at_most: float | None = None
    """The required upper bound of the subject."""
    memory_bytes: int = 0
    """The highest summed peak memory of the subject's processes in a run."""
    settings: Settings = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Median of the subject divided by the median of the limit."""
        return median(self.subject) / median(self.limit)

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        if self.at_most is not None:
            return median(self.subject) <= self.at_most
        return self.at_least is None or self.ratio >= self.at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The size of a measurement."""

    name: Literal["small", "full"]
    customers: int
    """For P1, P2, P5 and P6."""
    rows: int
    """For P8 and P9."""
    creates: int
    """For P7."""
    warm_up: int
    """Records or creates before the clock starts."""
    runs: int
    """Runs, whose median counts."""


FULL = Scale(name="full", customers=200_000, rows=100_000, creates=1_500, warm_up=2_000, runs=3)
SMALL = Scale(name="small", customers=5_000, rows=5_000, creates=100, warm_up=500, runs=1)


def rates(runs: Sequence[Run]) -> list[float]:
    """The rates of these runs."""
    return [run.thousands_a_second for run in runs]


def memory_peak(runs: Sequence[Run]) -> int:
    """The highest memory of these runs."""
    return max(run.memory_bytes for run in runs)
