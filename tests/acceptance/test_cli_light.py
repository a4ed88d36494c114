"""Till commands do not import the libraries that only other processes need."""

import subprocess
import sys
from typing import Final

import pytest

from tests.acceptance.cli import ROOT, Tenten

HEAVY: Final = {
    "alembic",
    "arro3",
    "confluent_kafka",
    "langcodes",
    "pgpq",
    "polars",
    "psycopg",
    "pyarrow",
    "rich",
    "structlog",
}
ID: Final = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"

PROGRAM: Final = """
import sys
from tenten.cli.main import app
app(args=sys.argv[1:], prog_name="tenten", standalone_mode=False)
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("create", "houston", "--first-name", "Ben", "--email", "ben@example.com", "--phone", "713 555 0100"),
        ("search", "houston", "lovelace", "--json"),
        ("show", "houston", ID),
        ("edit", "houston", ID, "--set", "last_name=King"),
    ],
    ids=lambda words: words[0],
)
def test_till_command_on_sqlite_loads_no_heavy_library(store: Tenten, words: tuple[str, ...]) -> None:
    """The command imports no column library, no migrations, and no Kafka or PostgreSQL client."""
    # given
    store.ok("customer", "create", "houston", "--last-name", "Lovelace", "--customer-id", ID)
    # when
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "customer", *words],
        cwd=store.directory,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    # then
    assert set(done.stderr.split()) & HEAVY == set()
