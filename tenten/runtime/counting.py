"""What this process has counted since its start: plain numbers in memory, which `/metrics` reads.

Only a process that serves HTTP counts: everywhere else a call returns at once. Names and labels are those of
`tenten.runtime.metrics`; a label never contains a customer.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from tenten.runtime.metrics import METRICS

Labels = tuple[str, ...]
"""The values of the labels of a metric, in the order of the catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """A histogram."""

    buckets: tuple[int, ...]
    """Observations up to each bound of the catalogue, not cumulated; the last entry has those above all bounds."""
    seconds: float
    """The sum."""


@dataclass(slots=True)
class _Counted:
    is_on: bool = False
    lock: Lock = field(default_factory=Lock)
    numbers: dict[str, dict[Labels, float]] = field(default_factory=dict)
    buckets: dict[str, dict[Labels, list[int]]] = field(default_factory=dict)
    seconds: dict[str, dict[Labels, float]] = field(default_factory=dict)


_counted: Final = _Counted()


def start() -> None:
    """Count from now on."""
    _counted.is_on = True


def is_counting() -> bool:
    """Whether anything is counted, for callers that would have to find out something first."""
    return _counted.is_on


def count(name: str, amount: float = 1, *labels: str) -> None:
    """Add to a counter."""
    if _counted.is_on and amount:
        with _counted.lock:
            values = _counted.numbers.setdefault(name, {})
            values[labels] = values.get(labels, 0) + amount


def set_gauge(name: str, value: float, *labels: str) -> None:
    """Set a gauge."""
    if _counted.is_on:
        with _counted.lock:
            _counted.numbers.setdefault(name, {})[labels] = value


def forget(name: str) -> None:
    """Let a gauge be absent, as before it was set."""
    with _counted.lock:
        _counted.numbers.pop(name, None)


def observe(name: str, seconds: float, *labels: str) -> None:
    """Add a duration to a histogram."""
    if _counted.is_on:
        bounds = METRICS[name].buckets
        with _counted.lock:
            buckets = _counted.buckets.setdefault(name, {}).setdefault(labels, [0] * (len(bounds) + 1))
            buckets[bisect_left(bounds, seconds)] += 1
            sums = _counted.seconds.setdefault(name, {})
            sums[labels] = sums.get(labels, 0.0) + seconds


def numbers(name: str) -> Mapping[Labels, float]:
    """The values of a counter or a gauge, by label values."""
    with _counted.lock:
        return dict(_counted.numbers.get(name, {}))


def durations(name: str) -> Mapping[Labels, Durations]:
    """A histogram, by label values."""
    with _counted.lock:
        return {
            labels: Durations(buckets=tuple(buckets), seconds=_counted.seconds[name][labels])
            for labels, buckets in _counted.buckets.get(name, {}).items()
        }
