"""The times of registrations as a small graph: one line for the middle, one for the slowest hundredth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tenten.headquarters_views.registration_times import MINUTES, MinuteOfTimes

WIDTH: Final = 240
HEIGHT: Final = 44
_FASTEST_SECONDS: Final = 0.01
_SLOWEST_SECONDS_MIN: Final = 10.0
_MARGIN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """The paths of an SVG of this width and height."""

    p50: str
    p99: str
    width: int = WIDTH
    height: int = HEIGHT


def sparkline(minutes: Sequence[MinuteOfTimes], now: datetime) -> Sparkline:
    """The graph of the last hour, its times on a logarithmic scale. A gap is a minute without new customers."""
    slowest = max([_SLOWEST_SECONDS_MIN, *(minute.p99_seconds for minute in minutes)])
    begin = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    numbers = [int((minute.minute_at - begin).total_seconds() // 60) for minute in minutes]
    return Sparkline(
        p50=_path(numbers, [minute.p50_seconds for minute in minutes], slowest),
        p99=_path(numbers, [minute.p99_seconds for minute in minutes], slowest),
    )


def _path(numbers: Sequence[int], seconds: Sequence[float], slowest: float) -> str:
    """The path through these minutes; one without neighbours is a dash."""
    parts = []
    before = None
    for number, value in zip(numbers, seconds, strict=True):
        if not 0 <= number < MINUTES:
            continue
        x, y = WIDTH * (number + 0.5) / MINUTES, _y(value, slowest)
        parts.append(f"L{x:.1f} {y:.1f}" if before == number - 1 else f"M{x - 1.5:.1f} {y:.1f}h3")
        before = number
    return "".join(parts)


def _y(seconds: float, slowest: float) -> float:
    share = math.log(max(seconds, _FASTEST_SECONDS) / _FASTEST_SECONDS) / math.log(slowest / _FASTEST_SECONDS)
    return HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN)
