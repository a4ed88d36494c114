"""The wheel of release 0.1.0 is what its commit builds."""

import subprocess
import zipfile
from pathlib import Path

from tests.upgrade.build_wheel import ROOT, sha256, unpack_commit
from tests.upgrade.released import COMMIT, SHA256, WHEEL


def test_wheel_holds_the_files_of_the_release(tmp_path: Path) -> None:
    """Its SHA-256 is as noted; where the history is complete, every file of it is compared with the commit's."""
    assert sha256(WHEEL) == SHA256
    has_commit = subprocess.run(["git", "cat-file", "-e", COMMIT], cwd=ROOT, capture_output=True, check=False)
    if has_commit.returncode == 0:
        unpack_commit(COMMIT, tmp_path)
        with zipfile.ZipFile(WHEEL) as wheel:
            files = [name for name in wheel.namelist() if ".dist-info/" not in name]
            assert len(files) > 100
            assert [name for name in files if wheel.read(name) != (tmp_path / name).read_bytes()] == []


def test_released_schemas_are_those_of_the_release() -> None:
    """`schemas/avro/released/`, with which contracts are compared, is what the release writes."""
    with zipfile.ZipFile(WHEEL) as wheel:
        names = {
            Path(name).name for name in wheel.namelist() if name.startswith("schemas/avro/") and "released" not in name
        }
        assert {file.name: file.read_bytes() for file in (ROOT / "schemas/avro/released").iterdir()} == {
            name: wheel.read(f"schemas/avro/{name}") for name in names
        }
