"""docker-compose.yml runs every worker on the same broker as the tests, and its services wait for each other; whatever
runs workers restarts them.
"""

import configparser
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenten.cli.exit_codes import USAGE
from tenten.local import BROKER_PROPERTIES, KAFKA_VERSION
from tenten.workers import AT_HEADQUARTERS
from tests.services import KAFKA_IMAGE, POSTGRES_IMAGE, kafka_environment

ROOT = Path(__file__).parents[2]

# These differ between the container and the local broker.
ADDRESSES_AND_PATHS = {
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "controller.quorum.voters",
    "log.dirs",
}


HTTP = ("--http", "0.0.0.0:8710", "--http-without-tls")
"""Health and metrics, within the network of the containers."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """docker-compose.yml as Docker reads it, anchors and merges resolved."""
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


def properties_of(environment: dict[str, str]) -> dict[str, str]:
    """Server properties as the image's start script makes them of its variables."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in environment.items()
        if name.startswith("KAFKA_")
    }


def test_compose_broker_has_the_properties_of_the_local_broker(compose: dict[str, Any]) -> None:
    """A test on the local broker also holds for the broker that users run."""
    properties = properties_of(compose["services"]["kafka"]["environment"])
    assert {name: value for name, value in properties.items() if name not in ADDRESSES_AND_PATHS} == dict(
        BROKER_PROPERTIES
    )


def test_one_broker_keeps_one_copy_of_the_transaction_state(compose: dict[str, Any]) -> None:
    """Without these two properties init_transactions() hangs on a single broker."""
    environment = compose["services"]["kafka"]["environment"]
    assert environment["KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR"] == "1"
    assert environment["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"


def test_every_image_is_pinned_to_the_version_the_tests_run_on(compose: dict[str, Any]) -> None:
    """No tag can change, and Kafka and PostgreSQL have the versions of the local servers."""
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert images["kafka"] == KAFKA_IMAGE == f"apache/kafka:{KAFKA_VERSION}"
    assert images["postgres"] == POSTGRES_IMAGE
    for image in images.values():
        assert image.partition(":")[2] not in ("", "latest"), image


def test_services_start_after_the_services_that_they_need(compose: dict[str, Any]) -> None:
    """The servers are healthy before topics and tables are created, and those exist before a worker starts."""
    services = compose["services"]
    assert services["init"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "schema-registry": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
    }
    for process in (*(worker.name for worker in AT_HEADQUARTERS), "houston"):
        assert services[process]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    for server in ("kafka", "schema-registry", "postgres"):
        assert "healthcheck" in services[server]


def test_every_worker_of_headquarters_runs(compose: dict[str, Any]) -> None:
    """Each has its own process, with the same settings and image."""
    services = compose["services"]
    for worker in AT_HEADQUARTERS:
        assert services[worker.name] == services["headquarters"] | {"command": [*worker.command, *HTTP]}


def test_ui_starts_only_when_asked_for(compose: dict[str, Any]) -> None:
    """A plain `docker compose up` starts only the services that are needed."""
    assert {name for name, service in compose["services"].items() if "profiles" in service} == {"ui"}


def test_compose_file_has_no_version_key(compose: dict[str, Any]) -> None:
    """Docker warns about the obsolete key."""
    assert "version" not in compose


def test_every_channel_of_the_configuration_runs(compose: dict[str, Any]) -> None:
    """Each channel that deploy/compose/tenten.toml names has its service and its database."""
    configuration = tomllib.loads((ROOT / "deploy/compose/tenten.toml").read_text())
    databases = (ROOT / "deploy/compose/databases.sql").read_text()
    for channel in configuration["channels"]:
        assert compose["services"][channel]["command"] == ["channel", "run", channel, *HTTP]
        assert f"CREATE DATABASE {channel};" in databases


def test_variables_for_the_container_of_the_tests_name_the_same_properties() -> None:
    """A broker in a container of the tests differs from the local one in its addresses only."""
    properties = properties_of(kafka_environment("127.0.0.1:12345"))
    assert {name: value for name, value in properties.items() if name not in ADDRESSES_AND_PATHS} == dict(
        BROKER_PROPERTIES
    )
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:12345"


def test_compose_restarts_every_worker(compose: dict[str, Any]) -> None:
    """A process that was killed is started again."""
    runs = {name: service for name, service in compose["services"].items() if "run" in service.get("command", [])}
    assert runs.keys() >= {worker.name for worker in AT_HEADQUARTERS}
    assert {service["restart"] for service in runs.values()} == {"unless-stopped"}


def test_systemd_restarts_every_worker_except_after_wrong_settings() -> None:
    """Each unit runs a worker of headquarters, or a channel, until it is stopped."""
    commands = set()
    for path in (ROOT / "deploy" / "systemd").glob("*.service"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
        unit.read(path)
        service = unit["Service"]
        commands.add(service["ExecStart"].partition("/tenten ")[2])
        assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", str(USAGE))
        assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    workers = {
        f"{' '.join(worker.command)} --http 127.0.0.1:870{port}" for port, worker in enumerate(AT_HEADQUARTERS, 1)
    }
    channel = "channel run %i --http 127.0.0.1:8710 --token-file /var/lib/tenten/%i.api.token"
    dashboard = "headquarters web --http 127.0.0.1:8700 --token-directory /var/lib/tenten"
    assert commands == {*workers, channel, dashboard}
