"""The results as a table and as JSON, without host names and paths."""

import json
import os
import platform
import sqlite3
import tomllib
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

ELSEWHERE: Final = {
    "P3": "measured elsewhere: its peer needs Kafka Connect and a PostgreSQL on TCP",
    "P4": "not in this release",
    "P10": "not in this release",
    "P11": "not in this release",
}


def document(results: Sequence[Result], servers: Servers, scale: Scale, seconds: float) -> dict[str, Any]:
    """The results, with machine and versions."""
    return {
        "release": release(),
        "scale": scale.name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "machine": _machine(servers),
        "bars": [_bar(result) for result in results],
        "elsewhere": ELSEWHERE,
    }


def release() -> str:
    """The version of the measured release."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def _machine(servers: Servers) -> dict[str, Any]:
    with psycopg.connect(servers.services.postgresql) as connection:
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
        "limit": round(median(result.limit), 3),
        "ratio": round(result.ratio, 3),
        "at_least": result.at_least,
        "at_most": result.at_most,
        "met": result.met,
        "memory_mib": round(result.memory_bytes / 2**20),
        "runs": {
            "subject": [round(value, 3) for value in result.subject],
            "limit": [round(value, 3) for value in result.limit],
        },
        "settings": result.settings,
    }


def write(file: Path, found: dict[str, Any]) -> None:
    """Write the document as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the table."""
    machine = found["machine"]
    title = f"tenten {found['release']}, {machine['cores']} cores, {machine['memory_gib']} GiB, scale {found['scale']}"
    table = Table(title=title)
    for heading in ("", "what", "against"):
        table.add_column(heading)
    for heading in ("subject", "limit", "ratio", "bar", "met", "MiB"):
        table.add_column(heading, justify="right")
    for bar in found["bars"]:
        table.add_row(
            bar["bar"],
            bar["what"],
            bar["against"],
            f"{bar['subject']:.1f} {bar['unit']}",
            f"{bar['limit']:.1f} {bar['unit']}",
            f"{bar['ratio']:.2f}",
            f"≤ {bar['at_most']:g} {bar['unit']}"
            if bar["at_most"] is not None
            else f"≥ {bar['at_least']:g}"
            if bar["at_least"] is not None
            else "",
            "" if bar["at_least"] is bar["at_most"] is None else "yes" if bar["met"] else "NO",
            str(bar["memory_mib"] or ""),
        )
    console.print(table)
    for bar, why in found["elsewhere"].items():
        console.print(f"{bar}: {why}")
