"""The packages of the image: locked with hashes, and those that pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "deploy" / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a lock file."""
    text = (REQUIREMENTS / name).read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        pinned = re.match(r"([\w.-]+)==(\S+)", line)
        assert pinned is not None, line
        found[canonicalize_name(pinned[1])] = (pinned[2], re.findall(r"--hash=sha256:([0-9a-f]{64})(?: |$)", line))
    return found


@pytest.mark.parametrize("name", ["headquarters.txt", "fast-copy.txt", "build.txt"])
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    """Whoever builds the image says where the packages come from; pip checks the hashes."""
    assert all(hashes for _, hashes in locked(name).values())
    assert "://" not in (REQUIREMENTS / name).read_text()


def test_lock_satisfies_the_dependencies() -> None:
    """After a change of the dependencies: `make lock`."""
    extras = PROJECT["optional-dependencies"]
    optional = ("columns", "postgresql", "web", "otel")
    asked = [*PROJECT["dependencies"], *(package for name in optional for package in extras[name])]
    packages = locked("headquarters.txt")
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in packages, requirement
        assert packages[name][0] in requirement.specifier, requirement


def test_fast_copy_is_the_extra_without_its_dependencies() -> None:
    """The input of its lock has the requirements of pyproject.toml, and the lock nothing else."""
    given = [Requirement(line) for line in (REQUIREMENTS / "fast-copy.in").read_text().splitlines() if line[0] != "#"]
    extra = map(Requirement, PROJECT["optional-dependencies"]["fast-copy"])
    assert {(line.name, line.specifier) for line in given} == {(line.name, line.specifier) for line in extra}
    assert locked("fast-copy.txt").keys() == {canonicalize_name(line.name) for line in given}
