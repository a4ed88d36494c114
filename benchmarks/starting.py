"""L1: the CPU of `tenten customer create` on SQLite, beyond that of an empty program with typer and SQLAlchemy."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.measuring import Result, Scale
from benchmarks.servers import Servers

L1_MS_MAX: Final = 250.0

_RUNS: Final = 9
STORE_SETTINGS: Final = """
[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = { format = "C-########", next = 1 }

[channels.houston]
legal_entity = "usrt"
database = "sqlite:///houston.db"
"""
_EMPTY: Final = """
import sqlalchemy, typer

engine = sqlalchemy.create_engine("sqlite://")
app = typer.Typer()


@app.command()
def main() -> None:
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))


app()
"""
_TENTEN: Final = (sys.executable, "-m", "tenten.cli")
_CREATE: Final = (
    *_TENTEN,
    *("customer", "create", "houston", "--first-name", "Ada", "--last-name", "Lovelace", "--email", "ada@example.com"),
)


def starting(_: Servers, __: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """L1: the median of some commands less the median of some empty programs."""
    assert bars == {"L1"}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "tenten.toml").write_text(STORE_SETTINGS, encoding="utf-8")
        _cpu_ms((*_TENTEN, "database", "upgrade", "channel", "houston"), directory)
        creates, empty = [], []
        for _number in range(_RUNS):
            creates.append(_cpu_ms(_CREATE, directory))
            empty.append(_cpu_ms((sys.executable, "-c", _EMPTY), directory))
    limit = sorted(empty)[_RUNS // 2]
    yield Result(
        bar="L1",
        what="CPU of `tenten customer create` beyond an empty program",
        against="the empty program: typer and SQLAlchemy",
        unit="ms",
        subject=[spent - limit for spent in creates],
        limit=empty,
        at_most=L1_MS_MAX,
        settings={"commands": _RUNS, "database": "sqlite"},
    )


def _cpu_ms(command: Sequence[str], directory: Path) -> float:
    """CPU milliseconds of a command, user and system. Source: wait4(2)."""
    source = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        command, cwd=directory, env={**os.environ, "PYTHONPATH": source}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return (usage.ru_utime + usage.ru_stime) * 1000
