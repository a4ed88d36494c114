"""The examples of deploy/: units of systemd, and resources of Kubernetes. Their commands are commands of `tenten`."""

import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import typer
import yaml

from tenten.cli.main import app
from tenten.runtime.settings import Settings

ROOT: Final = Path(__file__).parents[2]
UNITS: Final = sorted((ROOT / "deploy/systemd").glob("*.service"))
MANIFESTS: Final = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
EXPOSURE_MAX: Final = 30
"""Of a hundred, by `systemd-analyze security`; a unit without any hardening has 96."""


def resources() -> Iterator[dict[str, Any]]:
    """Every resource of the manifests."""
    for manifest in MANIFESTS:
        yield from yaml.safe_load_all(manifest.read_text())


RESOURCES: Final = list(resources())


def containers() -> Iterator[dict[str, Any]]:
    """Every container of the resources, those of initialization too."""
    for resource in RESOURCES:
        pod = resource.get("spec", {}).get("template", {}).get("spec", {})
        yield from (*pod.get("initContainers", ()), *pod.get("containers", ()))


def commands() -> Iterator[list[str]]:
    """The words after `tenten` of every example."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    yield from (service["command"] for service in services.values() if service["image"].startswith("tenten:"))
    yield from (container["args"] for container in containers())
    for unit in UNITS:
        (line,) = (line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
        yield shlex.split(line)[1:]


def each_command() -> Iterator[list[str]]:
    """The same; a line for the shell gives several."""
    for words in commands():
        if len(words) == 1:
            yield from (shlex.split(part)[1:] for part in words[0].split("&&"))
        else:
            yield words


@pytest.mark.parametrize("words", list(each_command()), ids=" ".join)
def test_command_of_an_example_is_a_command_with_these_options(words: list[str]) -> None:
    """The command line of this release takes it as it is written, up to running it."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while getattr(command, "commands", None):
        command = command.commands[left.pop(0)]
    assert command.make_context("tenten", left).args == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_is_valid_and_hardened(unit: Path, tmp_path: Path) -> None:
    """Systemd finds nothing wrong with it, and little that the process could do beside its work. Where there is no
    systemd, the other tests read the units.
    """
    # given
    text = unit.read_text().replace("/opt/tenten/bin/tenten", sys.executable)
    name = unit.name.replace("@", "@houston")
    (tmp_path / name).write_text(text)
    for setting in ("NoNewPrivileges=true", "ProtectSystem=strict", "SystemCallFilter=@system-service"):
        assert setting in text.splitlines()
    if shutil.which("systemd-analyze") is None:
        return

    # when
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name], capture_output=True, text=True, check=False
    )
    secured = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", tmp_path / name],
        capture_output=True,
        text=True,
        check=False,
    )

    # then
    assert [line for line in verified.stderr.splitlines() if name in line] == []
    assert secured.returncode == 0, secured.stdout[-2_000:] + secured.stderr


@pytest.mark.parametrize(
    "resource", RESOURCES, ids=lambda resource: f"{resource['kind']}-{resource['metadata']['name']}"
)
def test_resource_is_valid_for_kubernetes(resource: dict[str, Any]) -> None:
    """By the schemas of Kubernetes, without a field that they do not know."""
    kubernetes_validate.validate(resource, "1.37", strict=True)


def test_workers_in_kubernetes_have_probes_that_their_command_serves() -> None:
    """`/livez` restarts, `/readyz` does not; the port is that of `--http`; nothing runs as root."""
    workers = [container for container in containers() if "run" in container["args"]]
    assert len(workers) == 3
    for worker in workers:
        address = worker["args"][worker["args"].index("--http") + 1]
        assert worker["ports"] == [{"name": "http", "containerPort": int(address.rpartition(":")[2])}]
        assert worker["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
        assert worker["securityContext"]["runAsNonRoot"] is True


def test_settings_in_kubernetes_are_valid() -> None:
    """The `tenten.toml` of the ConfigMap can be loaded."""
    (settings,) = (resource["data"]["tenten.toml"] for resource in RESOURCES if resource["kind"] == "ConfigMap")
    assert Settings.model_validate(tomllib.loads(settings), context={"directory": ROOT}).legal_entities.keys() == {
        "usrt"
    }
