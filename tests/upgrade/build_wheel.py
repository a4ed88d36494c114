"""Build the wheel of a release from its commit, for the upgrade tests.

    python -m tests.upgrade.build_wheel a0fe531

Writes the wheel to `tests/upgrade/releases/` and prints its name and SHA-256, which belong in
`tests/upgrade/released.py`. The same commit and the same setuptools build the same bytes.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
RELEASES: Final = Path(__file__).parent / "releases"


def build_wheel(commit: str, directory: Path) -> Path:
    """Build the wheel of this commit into a directory."""
    committed_at = _git("log", "-1", "--format=%ct", commit).decode().strip()
    with tempfile.TemporaryDirectory() as temporary:
        source, built = Path(temporary) / "source", Path(temporary) / "built"
        unpack_commit(commit, source)
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(built), str(source)]
        # Zip files hold times: those of the commit.
        subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": committed_at}, check=True)
        (wheel,) = built.glob("*.whl")
        return Path(wheel.rename(directory / wheel.name))


def unpack_commit(commit: str, directory: Path) -> None:
    """Write the files of a commit into a directory."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
        archive.extractall(directory, filter="data")


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    wheel = build_wheel(sys.argv[1], RELEASES)
    print(f"{wheel.name} {sha256(wheel)}")
