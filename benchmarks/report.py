"""The results as a table and as JSON, without host names and paths."""

import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import confluent_kafka
import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Result, Scale
from benchmarks.servers import Servers
from tenten.local import KAFKA_VERSION

_PACKAGES: Final = ("confluent-kafka", "fastavro", "pgpq", "polars", "psycopg", "SQLAlchemy")

_ROOT: Final = Path(__file__).parent.parent


class Report:
    """The document of results: each benchmark's are added, and written, as soon as they are measured.

    A file that exists keeps the results of the bars that this run does not measure.
    """

    def __init__(self, file: Path | None, servers: Servers, scale: Scale) -> None:
        self._file = file
        self._scale = scale
        earlier = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else {}
        self.found: dict[str, Any] = {
            "release": release(),
            "machine": _machine(servers),
            "bars": earlier.get("bars", []),
            "not_run": earlier.get("not_run", {}),
        }
        self.measured: list[dict[str, Any]] = []
        """The results of this run."""

    def add(self, bars: frozenset[str], results: Sequence[Result]) -> None:
        """Replace the results of these bars by new ones, and write the file."""
        rows = [self._row(result) for result in results]
        self.measured += rows
        kept = [row for row in self.found["bars"] if row["bar"] not in bars]
        self.found["bars"] = sorted([*kept, *rows], key=lambda row: order(row["bar"]))
        self.found["not_run"] = {bar: why for bar, why in self.found["not_run"].items() if bar not in bars}
        self._write()

    def not_run(self, bars: frozenset[str], why: str) -> None:
        """Record that these bars could not be measured here; earlier results of theirs stay."""
        self.found["not_run"] |= dict.fromkeys(sorted(bars), why)
        self._write()

    def _row(self, result: Result) -> dict[str, Any]:
        measured_at = datetime.now(UTC).isoformat(timespec="seconds")
        return {**_bar(result), "scale": self._scale.name, "measured_at": measured_at, "commit": _commit()}

    def _write(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self.found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def order(bar: str) -> tuple[str, int, str]:
    """The order of bars: P2 before P10, P7 before P7a."""
    found = re.fullmatch(r"(\D*)(\d*)(.*)", bar)
    assert found is not None
    return found[1], int(found[2] or 0), found[3]


def release() -> str:
    """The version of the measured release; `unreleased` while the changelog begins with changes of none."""
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert newest is not None
    return newest[1].lower()


def _commit() -> str:
    """The commit that is measured, with a plus sign if files were changed since; empty outside of a repository."""
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    described = subprocess.run(git, capture_output=True, text=True, check=False)
    return described.stdout.strip()


def _machine(servers: Servers) -> dict[str, Any]:
    with psycopg.connect(servers.postgresql) as connection:
        shown = ("server_version", "fsync", "shared_buffers", "max_wal_size", "synchronous_commit")
        postgresql = {name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in shown}
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        "librdkafka": confluent_kafka.libversion()[0],
        "postgresql": {name: row[0] if row else None for name, row in postgresql.items()},
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _bar(result: Result) -> dict[str, Any]:
    return {
        "bar": result.bar,
        "what": result.what,
        "against": result.against,
        "unit": result.unit,
        "subject": round(median(result.subject), 3),
        "limit": round(median(result.limit), 3) if result.limit else None,
        "ratio": None if result.ratio is None else round(result.ratio, 3),
        "at_least": result.at_least,
        "ratio_at_most": result.ratio_at_most,
        "at_most": result.at_most,
        "met": result.met,
        "memory_mib": round(result.memory_bytes / 2**20),
        "runs": {
            "subject": [round(value, 3) for value in result.subject],
            "limit": [round(value, 3) for value in result.limit],
        },
        "settings": result.settings,
        "details": result.details,
    }


def show(console: Console, report: Report) -> None:
    """Print the table of this run, and below it the details."""
    machine = report.found["machine"]
    table = Table(title=f"tenten {report.found['release']}, {machine['cores']} cores, {machine['memory_gib']} GiB")
    for heading in ("", "what", "against"):
        table.add_column(heading)
    for heading in ("subject", "limit", "ratio", "bar", "met", "MiB"):
        table.add_column(heading, justify="right")
    for row in report.measured:
        table.add_row(
            row["bar"],
            row["what"],
            row["against"],
            f"{row['subject']:.1f} {row['unit']}",
            "" if row["limit"] is None else f"{row['limit']:.1f} {row['unit']}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            _bound(row),
            "" if not _bound(row) else "yes" if row["met"] else "NO",
            str(row["memory_mib"] or ""),
        )
    console.print(table)
    for row in report.measured:
        for name, value in row["details"].get("shown", {}).items():
            console.print(f"{row['bar']}, {name}: {_text(value)}", highlight=False)
        for inner in row["details"].get("tables", ()):
            console.print(_plain_table(inner))
    for bar, why in report.found["not_run"].items():
        console.print(f"{bar}: {why}", highlight=False)


def _plain_table(found: dict[str, Any]) -> Table:
    table = Table(title=found["title"])
    for column in found["columns"]:
        table.add_column(column, justify="right")
    for row in found["rows"]:
        table.add_row(*(f"{value:,}" for value in row))
    return table


def _bound(row: dict[str, Any]) -> str:
    if row["at_most"] is not None:
        return f"≤ {row['at_most']:g} {row['unit']}"
    if row["ratio_at_most"] is not None:
        return f"≤ {row['ratio_at_most']:g}"
    return "" if row["at_least"] is None else f"≥ {row['at_least']:g}"


def _text(value: object) -> str:
    """A detail on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " / ".join(map(_text, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
