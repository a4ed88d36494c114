"""The API for tills against its own description: thousands of requests that schemathesis makes from it."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, SECONDS_MAX, Tenten
from tests.acceptance.test_till_api import NOWHERE
from tests.acceptance.till import serving_till
from tests.conftest import NewDatabase

EXAMPLES: Final = 8
"""Random requests for each operation."""


@pytest.mark.parametrize(
    ("database", "phases"),
    [
        ("postgresql", "examples,fuzzing"),
        # Also at the limits of every field, which no database sees.
        ("sqlite", "examples,coverage,fuzzing"),
    ],
)
def test_answers_are_as_described_whatever_is_sent(
    database: str, phases: str, tmp_path: Path, new_database: NewDatabase
) -> None:
    """No request is answered with a server error, an undescribed status or a document that the description does not
    have; requests that the description forbids are refused, and so are those without the token.
    """
    # given
    houston = HOUSTON
    if database == "postgresql":
        houston = houston.replace("sqlite:///houston.db", new_database("channel"))
    rate = "[http]\nrequests_per_second_max = 100000\n"
    (tmp_path / "tenten.toml").write_text(NOWHERE + rate + LEGAL_ENTITY + houston)
    tenten = Tenten(directory=tmp_path)
    tenten.ok("database", "upgrade", "channel", "houston")
    with serving_till(tenten) as till:
        # when
        options = {
            "header": f"Authorization: {till.client.headers['Authorization']}",
            # It has no end.
            "exclude-path": "/v1/events",
            # Rules of the business refuse more than a description can say.
            "exclude-checks": "positive_data_acceptance",
            "phases": phases,
            "max-examples": str(EXAMPLES),
            "seed": "1010",
        }
        program = Path(sys.executable).with_name("schemathesis")
        words = [f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(
            [program, "run", f"{till.client.base_url}/openapi.json", *words, "--continue-on-failure"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    # then
    assert done.returncode == 0, done.stdout
    assert "http_request_failed" not in till.log.read_text()
