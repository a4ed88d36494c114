"""The steps of deploy/Dockerfile in two empty environments: there is no Docker where the tests run.

Not performed: the base image, the user, and the removal of what was copied.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.cli import ROOT

DOCKERFILE: Final = (ROOT / "deploy/Dockerfile").read_text()
NOT_PERFORMED: Final = ("rm", "useradd")


def steps() -> Iterator[tuple[str, list[str]]]:
    """Each instruction with its words; RUN once for each command."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        for part in rest.split("&&") if instruction == "RUN" else [rest]:
            yield instruction, shlex.split(part)


class Stage:
    """A stage of the image: a directory in place of its root, and an environment in place of its Python."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = root / "environment"
        self.work = root
        subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", "--seed", self.environment], check=True)

    def path(self, name: str) -> Path:
        """A path of the image."""
        return self.root / name.lstrip("/") if name.startswith("/") else self.work / name

    def copy(self, words: list[str], earlier: "Stage | None") -> None:
        """COPY."""
        *sources, target = [word for word in words if not word.startswith("--")]
        at = self.path(target)
        for source in sources:
            given = earlier.path(source) if earlier is not None else ROOT / source
            into = at / given.name if target.endswith("/") else at
            into.parent.mkdir(parents=True, exist_ok=True)
            if given.is_dir():
                shutil.copytree(given, into, symlinks=earlier is None)
            else:
                shutil.copy(given, into)

    def run(self, words: list[str]) -> None:
        """RUN of pip. An installation is made by uv, which has a cache, from the same lines and hashes."""
        assert words[0] == "pip", words
        given = [str(self.path(word)) if word.startswith("/") else word for word in words[1:]]
        given = [name for word in given for name in (self.matching(word) if "*" in word else [word])]
        if given[0] == "install":
            given.remove("--no-cache-dir")
            python = self.environment / "bin/python"
            command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), *given[1:]]
        else:
            command = [str(self.environment / "bin/pip"), "--quiet", "--disable-pip-version-check", *given]
        done = subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr[-3_000:])

    @staticmethod
    def matching(pattern: str) -> list[str]:
        """The files that a pattern names."""
        return [str(file) for file in Path(pattern).parent.glob(Path(pattern).name)]


def test_image_contains_a_tenten_that_runs_with_everything_that_it_serves(tmp_path: Path) -> None:
    """Its packages are those of the lock, with their hashes, and the entry point works."""
    # given
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    entry: list[str] = []

    # when
    for instruction, words in steps():
        match instruction:
            case "FROM":
                assert words[0] == "python:3.13-slim"
                name = words[2] if "AS" in words else "last"
                stage = stages[name] = Stage(tmp_path / name)
            case "WORKDIR":
                assert stage is not None
                stage.work = stage.path(words[0])
                stage.work.mkdir(parents=True, exist_ok=True)
            case "COPY":
                assert stage is not None
                origin = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
                stage.copy(words, None if origin is None else stages[origin])
            case "RUN" if words[0] not in NOT_PERFORMED:
                assert stage is not None
                stage.run(words)
            case "ENTRYPOINT":
                entry = words
            case "RUN" | "USER":
                pass
            case _:
                pytest.fail(f"an instruction that this test does not know: {instruction}")

    # then
    assert entry == ["[tenten]"]
    binaries = stages["last"].environment / "bin"
    helped = subprocess.run([binaries / "tenten", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
    program = (
        "import tenten.cli.workers, tenten.web.apps, opentelemetry.sdk, tenten.consumers.headquarters.customers.run"
    )
    imported = subprocess.run(
        [binaries / "python", "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert imported.returncode == 0, imported.stderr
