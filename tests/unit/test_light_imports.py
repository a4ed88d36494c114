"""A till loads neither a column library nor the migrations."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.producer_scene import set_store

ROOT: Final = Path(__file__).parents[2]
HEAVY: Final = ("polars", "pyarrow", "arro3", "pgpq", "alembic")

CREATE: Final = """
from pathlib import Path
from tenten.producers import create_customer, open_channel
from tenten.settings import load_settings
with open_channel(load_settings(Path({toml!r})), "houston") as houston:
    create_customer(houston, last_name="Lovelace", email="ada@example.com", phone="713 555 0123")
"""
EVERYTHING: Final = "from tenten.producers import *"


def loaded(code: str) -> set[str]:
    """The top-level packages that a new process has loaded after running this code."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("code", ["import tenten.producers", EVERYTHING])
def test_importing_the_api_loads_no_heavy_library(code: str) -> None:
    """Neither the package alone nor all of its names."""
    assert not loaded(code) & set(HEAVY)


def test_the_package_alone_loads_no_database_library() -> None:
    """Names are imported on first use."""
    assert not loaded("import tenten.producers") & {"sqlalchemy", "confluent_kafka", "pydantic"}


def test_creating_a_customer_on_sqlite_loads_no_heavy_library(tmp_path: Path) -> None:
    """With all the code that a create runs, and without the relay's Kafka client."""
    # given
    with set_store(tmp_path, "sqlite:///houston.db") as store:
        # when
        packages = loaded(CREATE.format(toml=str(store.toml)))
        # then
        assert not packages & {*HEAVY, "confluent_kafka", "opentelemetry", "prometheus_client"}
        assert store.counts()["customers"] == 1
