"""The pictures and the table of docs/explanation/performance.md, made from the committed results.

    python -m benchmarks.pictures [RESULTS.json]

writes them; without a file, from the newest release's. `make bench` does so after each run at full scale.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from math import ceil, log10
from pathlib import Path
from typing import Any, Final

from benchmarks.report import release

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "explanation" / "performance.md"
BATCH_SIZES: Final = PAGE.with_name("performance-batch-sizes.svg")
LATENCY: Final = PAGE.with_name("performance-latency.svg")

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 60, 50
_COLOURS: Final = ("#1f5fa8", "#c2571a", "#3b7d3f")
_BARS: Final = ("#7fa8d6", "#1f5fa8")
_GOAL: Final = 'stroke="#b3261e" stroke-width="2" stroke-dasharray="5 3"'
_TABLE: Final = re.compile(r"(?<=<!-- figures -->\n).*(?=<!-- /figures -->)", re.DOTALL)


def main(file: str = "") -> None:
    """Write both pictures and the table."""
    write(Path(file) if file else ROOT / "benchmarks" / "results" / f"{release()}.json")


def write(file: Path) -> None:
    """Write the pictures and the table of a file of results."""
    found = json.loads(file.read_text(encoding="utf-8"))
    BATCH_SIZES.write_text(batch_sizes(found["bars"]), encoding="utf-8")
    LATENCY.write_text(latency(found["bars"]), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda _: table(found), page), encoding="utf-8")


# The picture of costs over batch sizes: both axes are logarithmic.


def batch_sizes(bars: Sequence[Mapping[str, Any]]) -> str:
    """CPU of a record over the size of its batch, a line for each place, without the broker."""
    curves = {bar["details"]["where"]: _costs(bar) for bar in bars if "curve" in bar.get("details", {})}
    lines = list(_frame("CPU of a record over the size of its batch", "records a batch", "microseconds, without Kafka"))
    points = [point for curve in curves.values() for point in curve]
    if points:
        across = _logarithmic([size for size, _ in points], _LEFT, _WIDTH - _RIGHT)
        up = _logarithmic([cost for _, cost in points], _HEIGHT - _BOTTOM, _TOP)
        lines += _ticks(across, [size for size, _ in points], is_across=True)
        lines += _ticks(up, [cost for _, cost in points], is_across=False)
        for number, (where, curve) in enumerate(curves.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            path = " ".join(f"{across(size):.1f},{up(cost):.1f}" for size, cost in curve)
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            lines += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in curve]
            lines.append(_text(_WIDTH - _RIGHT - 8, _TOP + 16 * (number + 1), where, anchor="end", colour=colour))
    return _svg(lines if points else [*lines, _NOT_MEASURED])


def _costs(bar: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The size and the microseconds of each point."""
    (found,) = bar["details"]["tables"]
    place = found["columns"].index("without Kafka")
    return [(float(row[0]), max(1.0, float(row[place]))) for row in found["rows"]]


def _logarithmic(values: Sequence[float], begin: float, end: float) -> Callable[[float], float]:
    low, high = (int(log10(min(values))), ceil(log10(max(values))))
    return lambda value: begin + (end - begin) * (log10(value) - low) / max(1, high - low)


def _ticks(scale: Callable[[float], float], values: Sequence[float], *, is_across: bool) -> Iterator[str]:
    """A line and a label at each power of ten."""
    for exponent in range(int(log10(min(values))), ceil(log10(max(values))) + 1):
        place, label = scale(10.0**exponent), f"{10**exponent:,}"
        if is_across:
            yield _line(place, _TOP, place, _HEIGHT - _BOTTOM)
            yield _text(place, _HEIGHT - _BOTTOM + 16, label)
        else:
            yield _line(_LEFT, place, _WIDTH - _RIGHT, place)
            yield _text(_LEFT - 6, place + 4, label, anchor="end")


# The picture of latencies: two bars for each rate.


def latency(bars: Sequence[Mapping[str, Any]]) -> str:
    """Median and 99th percentile of a create at each rate, in three stores, with their goals."""
    rates: dict[int, list[tuple[float, float]]] = {}
    for bar in bars:
        if bar["bar"] in {"P7", "P7a"} and "percentile" in bar.get("details", {}):
            rates.setdefault(bar["details"]["creates a second"], []).append((bar["subject"], bar["at_most"]))
    lines = list(_frame("From the create to the number in the store", "creates a second in three stores", "ms"))
    if rates:
        highest = max(max(pair) for pairs in rates.values() for pair in pairs) * 1.1
        group = (_WIDTH - _LEFT - _RIGHT) / len(rates)
        for place, (rate, pairs) in enumerate(sorted(rates.items())):
            begin = _LEFT + place * group
            lines.append(_text(begin + group / 2, _HEIGHT - _BOTTOM + 16, f"{rate}"))
            for number, (value, goal) in enumerate(pairs):
                lines += _bar(
                    begin + group * (0.2 + 0.3 * number), group * 0.28, value / highest, goal / highest, number
                )
                above = _y(max(value, goal) / highest) - 6
                lines.append(_text(begin + group * (0.34 + 0.3 * number), above, f"{value:.1f}"))
    for number, name in enumerate(("median", "99th percentile")):
        lines.append(_text(_WIDTH - _RIGHT - 110 * (2 - number), 44, name, anchor="start", colour=_BARS[number]))
    lines.append(_text(_LEFT, 44, "dashed: the goal", anchor="start"))
    return _svg(lines if rates else [*lines, _NOT_MEASURED])


def _bar(left: float, width: float, share: float, goal: float, number: int) -> Iterator[str]:
    top = _y(share)
    height = _HEIGHT - _BOTTOM - top
    yield f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{_BARS[number]}"/>'
    yield _line(left, _y(goal), left + width, _y(goal), style=_GOAL)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share


# SVG.


def _frame(title: str, across: str, up: str) -> Iterator[str]:
    yield _text(_LEFT, 24, title, anchor="start", size=16)
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, across)
    yield f'<g transform="translate(16 {_HEIGHT / 2}) rotate(-90)">{_text(0, 0, up)}</g>'
    yield _line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, style='stroke="#333"')


def _text(x: float, y: float, text: str, *, anchor: str = "middle", colour: str = "#333", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, *, style: str = 'stroke="#ddd"') -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _svg(lines: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *lines, "</svg>\n"])


_NOT_MEASURED: Final = _text(_WIDTH / 2, _HEIGHT / 2, "not measured yet")


# The table.


def table(found: Mapping[str, Any]) -> str:
    """The results as a Markdown table, and what was not run."""
    lines = ["| # | measured | result | goal | against | ratio |", "|---|---|---|---|---|---|"]
    for bar in found["bars"]:
        result = f"{bar['subject']:,.4g} {bar['unit']}"
        limit = "" if bar["limit"] is None else f"{bar['against']}: {bar['limit']:,.4g} {bar['unit']}"
        ratio = "" if bar["ratio"] is None else f"{bar['ratio']:.2f}"
        lines.append(f"| {bar['bar']} | {bar['what']} | {result} | {_goal(bar)} | {limit} | {ratio} |")
    lines += [f"| {bar} | {why} | | | | |" for bar, why in found.get("not_run", {}).items()]
    return "\n".join(lines) + "\n"


def _goal(bar: Mapping[str, Any]) -> str:
    if bar["at_most"] is not None:
        return f"at most {bar['at_most']:g} {bar['unit']}"
    if bar.get("ratio_at_most") is not None:
        return f"ratio at most {bar['ratio_at_most']:g}"
    return "" if bar["at_least"] is None else f"ratio at least {bar['at_least']:g}"


if __name__ == "__main__":
    main(*sys.argv[1:])
