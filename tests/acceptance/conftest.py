"""Directories with a `tenten.toml` for the real command line."""

from pathlib import Path

import pytest

from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, SEATTLE, Tenten
from tests.conftest import NewDatabase


@pytest.fixture
def store(tmp_path: Path) -> Tenten:
    """A till without servers: one channel on SQLite, upgraded; the settings name no broker and no headquarters."""
    (tmp_path / "tenten.toml").write_text(LEGAL_ENTITY + HOUSTON)
    tenten = Tenten(directory=tmp_path)
    tenten.ok("database", "upgrade", "channel", "houston")
    return tenten


@pytest.fixture
def headquarters_url(new_database: NewDatabase) -> str:
    """An empty PostgreSQL database without tables."""
    return new_database()


@pytest.fixture
def company(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Tenten:
    """Headquarters and two stores with a broker; topics and databases do not exist yet."""
    servers = f"""
prefix = "{prefix}"

[kafka]
"bootstrap.servers" = "{bootstrap_servers}"

[headquarters]
database = "{headquarters_url}"
"""
    (tmp_path / "tenten.toml").write_text(servers + LEGAL_ENTITY + HOUSTON + SEATTLE)
    return Tenten(directory=tmp_path)


@pytest.fixture
def ready_company(company: Tenten) -> Tenten:
    """The same, with topics and databases."""
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "all")
    return company
