"""What a benchmark measures, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Scalar = str | int | float | bool
Settings = Mapping[str, Scalar | Mapping[str, Scalar]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: how many records in how long, and the peak memory of its processes together."""

    records: int
    seconds: float
    memory_bytes: int = 0

    @property
    def thousands_a_second(self) -> float:
        """The rate."""
        return self.records / self.seconds / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A bar: subject and limit as measured in one run, in the order they were measured."""

    bar: str
    what: str
    against: str
    unit: Literal["k/s", "ms"]
    subject: Sequence[float]
    limit: Sequence[float]
    at_least: float | None = None
    """The ratio of subject to limit that is asked for."""
    at_most: float | None = None
    """The value of the subject that is asked for."""
    memory_bytes: int = 0
    """The most memory that the subject's processes had together, over all runs."""
    settings: Settings = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Median of the subject's runs to the median of the limit's."""
        return median(self.subject) / median(self.limit)

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        if self.at_most is not None:
            return median(self.subject) <= self.at_most
        return self.at_least is None or self.ratio >= self.at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    name: Literal["small", "full"]
    customers: int
    """For P1, P2, P5 and P6."""
    rows: int
    """For P8 and P9."""
    creates: int
    """For P7."""
    warm_up: int
    """Records, or creates, before the clock starts."""
    runs: int
    """Of which the median counts."""


FULL = Scale(name="full", customers=200_000, rows=100_000, creates=1_500, warm_up=2_000, runs=3)
SMALL = Scale(name="small", customers=5_000, rows=5_000, creates=100, warm_up=500, runs=1)


def rates(runs: Sequence[Run]) -> list[float]:
    """The rates of these runs."""
    return [run.thousands_a_second for run in runs]


def memory_peak(runs: Sequence[Run]) -> int:
    """The most memory of any of these runs."""
    return max(run.memory_bytes for run in runs)
