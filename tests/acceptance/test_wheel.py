"""The wheel, installed alone into an empty environment, next to files with the names of our folders."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from benchmarks.packaging import build_wheel
from tests.acceptance.cli import ROOT

EXAMPLE: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)
FOREIGN: Final = ("schemas.py", "commerce.py", "producers.py", "consumers/__init__.py", "operations/__init__.py")
SETTINGS: Final = """
[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = { format = "C-########" }

[channels.houston]
legal_entity = "usrt"
database = "sqlite:///houston.db"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_only_tenten(wheel: Path) -> None:
    """Contracts, migrations and the type marker are in it; `tenten/` and the metadata are all that it installs."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tenten", "tenten_commerce"}
    assert {
        "tenten/py.typed",
        "tenten/schemas/avro/Customer.avsc",
        "tenten/schemas/migrations/channel/versions/0001_customers.py",
        "tenten/producers/__init__.py",
        "tenten/consumers/channel/__init__.py",
    } <= set(names)


def test_readme_example_runs_beside_files_with_our_folders_names(wheel: Path, tmp_path: Path) -> None:
    """A program creates a customer although a `schemas.py` and a `consumers` package are in its directory."""
    # given
    environment, here = tmp_path / "venv", tmp_path / "program"
    here.mkdir()
    for name in FOREIGN:
        file = here / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise ImportError('this file belongs to the program beside it')\n")
    (here / "tenten.toml").write_text(SETTINGS)
    (example,) = EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (here / "program.py").write_text(example)
    python = environment / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", str(environment)], check=True)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), str(wheel)], check=True)

    # when
    tenten = environment / "bin" / "tenten"
    # Nothing of this checkout may be found.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TENTEN_", "KAFKA_"))}
    subprocess.run([str(tenten), "database", "upgrade", "channel", "houston"], cwd=here, env=clean, check=True)
    done = subprocess.run([str(python), "program.py"], cwd=here, env=clean, capture_output=True, text=True, check=False)

    # then
    assert (done.returncode, done.stdout) == (0, "Pending sync\n"), done.stderr
