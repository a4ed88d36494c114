"""Schemas in a real registry, Apicurio: registration, Confluent framing, and an unavailable registry."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
import pytest
from confluent_kafka import Consumer, TopicPartition

from tenten.avro.wire import contract
from tenten.kafka.schema_registry import Registry as Client
from tenten.kafka.schema_registry import publish_schemas
from tenten.local.ports import free_port
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import RegistryRefused, RegistryUnavailable
from tenten.runtime.settings import Settings
from tests.acceptance.cli import Tenten, end, wait_until
from tests.registry import Registry
from tests.services import directory_for_server

SINGLE_OBJECT: Final = b"\xc3\x01"
CONFLUENT: Final = b"\x00"

TOML: Final = """
{registry}
prefix = "{prefix}"

[kafka]
"bootstrap.servers" = "{bootstrap_servers}"

[headquarters]
database = "{url}"

[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = {{ format = "C-########", next = 1, continuous = true }}

[channels.houston]
legal_entity = "usrt"
database = "sqlite:///houston.db"

[channels.boston]
legal_entity = "usrt"
database = "sqlite:///boston.db"
"""


@pytest.fixture(scope="module")
def stopped_registry() -> Iterator[Registry]:
    """A real registry that has not started yet, in the first test; a test that stops it must start it again."""
    with directory_for_server("registry") as directory, Registry(directory) as registry:
        yield registry


@pytest.fixture
def registry(stopped_registry: Registry) -> Registry:
    """A real registry that runs."""
    stopped_registry.start()
    return stopped_registry


@pytest.fixture
def configure(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> Callable[[Registry | None], Tenten]:
    """Headquarters and two stores, with a registry or without."""

    def write(registry: Registry | None) -> Tenten:
        toml = TOML.format(
            registry="" if registry is None else f'schema_registry_url = "{registry.url}"',
            prefix=prefix,
            bootstrap_servers=bootstrap_servers,
            url=headquarters_url,
        )
        (tmp_path / "tenten.toml").write_text(toml)
        return Tenten(directory=tmp_path)

    return write


@pytest.fixture
def company(configure: Callable[[Registry | None], Tenten]) -> Tenten:
    """Settings without a registry, with topics and databases."""
    tenten = configure(None)
    tenten.ok("topics", "apply")
    tenten.ok("database", "upgrade", "all")
    return tenten


def settings(prefix: str, registry: Registry) -> Settings:
    """Settings for `publish_schemas`."""
    return Settings(prefix=prefix, schema_registry_url=registry.url)


def test_workers_recover_from_an_unavailable_registry(
    company: Tenten, configure: Callable[[Registry | None], Tenten], stopped_registry: Registry, prefix: str
) -> None:
    """Workers retry, log it once and recover; stores create customers meanwhile, and nothing is skipped."""
    # given
    registry = stopped_registry
    configure(registry)
    try:
        with company.running("headquarters", "run") as hq, company.running("channel", "run", "houston") as houston:
            # when
            company.ok("customer", "create", "houston", "--first-name", "Ada")
            wait_until(lambda: len(warnings_of(company)) == 2, "a warning of both workers")
            wait_for_seconds(AWAY_SECONDS)
            # then
            assert [process.poll() for process in (hq, houston)] == [None, None]
            assert len(warnings_of(company)) == 2
            assert values(company, prefix, "async-customers") == []
            # when
            registry.start()
            # then
            wait_until(lambda: numbered(company, "houston") == {"Ada"}, "Ada's number")
            wait_until(lambda: versions(company, "houston") == [1], "Ada's snapshot")

            # when it stops again: running workers know the ids, a new worker must look them up
            registry.stop()
            company.ok("customer", "create", "houston", "--first-name", "Ben")
            wait_until(lambda: numbered(company, "houston") == {"Ada", "Ben"}, "Ben's number")
            before = len(warnings_of(company))
            with company.running("channel", "distribute", "boston") as boston:
                wait_until(lambda: len(warnings_of(company)) > before, "the warning of boston")
                wait_for_seconds(AWAY_SECONDS)
                # then
                assert boston.poll() is None
                events = [line.partition("event=")[2].split()[0] for line in warnings_of(company)[before:]]
                # Settings are read in a thread of their own, which reports its failure for itself.
                assert [event for event in events if event != "channel_settings_failed"] == ["retry_started"]
                assert numbered(company, "boston") == set()
                registry.start()
                wait_until(lambda: numbered(company, "boston") == {"Ada", "Ben"}, "both in boston")
    finally:
        registry.start()


def test_schemas_are_registered_once_under_the_subjects_of_their_topics(registry: Registry, prefix: str) -> None:
    """The header of each contract has the registry's id of its schema, the same at every start."""
    # when
    headers = publish_schemas(settings(prefix, registry))
    again = publish_schemas(settings(prefix, registry))
    # then
    assert again == headers
    subjects = {
        "CustomerEvent": f"{prefix}async-customers-value",
        "Customer": f"{prefix}customers-value",
        "Reply": f"{prefix}channel-replies-value",
        "RetailTransaction": f"{prefix}retail-transactions-value",
        "TransactionReply": f"{prefix}transaction-replies-value",
        "Heartbeat": f"{prefix}channel-status-value",
        "ChannelSettings": f"{prefix}channel-settings-value",
        "JoinRequest": f"{prefix}joins-value",
        "TopicStatus": f"{prefix}headquarters-status-value",
        "Erasure": f"{prefix}erasures-value",
    }
    assert headers.keys() == subjects.keys()
    for name, subject in subjects.items():
        registered = registry.ask(f"/subjects/{subject}/versions/latest")
        assert registered["version"] == 1
        assert json.loads(registered["schema"]) == contract(name).json
        assert headers[name] == CONFLUENT + registered["id"].to_bytes(4, "big")
        assert Client(registry.url).schema(registered["id"]) == contract(name).json


def test_unknown_registry_id_has_no_schema(registry: Registry) -> None:
    """A value with such an id cannot be read; the registry's 404 is not an error."""
    assert Client(registry.url).schema(2_000_000_000) is None


def test_incompatible_schema_is_refused_with_the_registry_message(registry: Registry, prefix: str) -> None:
    """A foreign schema under our subject stops the writer with the registry's message."""
    # given
    other = {"type": "record", "name": "Customer", "namespace": "tenten", "fields": [{"name": "age", "type": "int"}]}
    subject = f"{prefix}customers-value"
    registry.ask(f"/subjects/{subject}/versions", "POST", {"schemaType": "AVRO", "schema": json.dumps(other)})
    registry.ask(f"/config/{subject}", "PUT", {"compatibility": "FULL"})
    # when
    with pytest.raises(RegistryRefused) as refused:
        publish_schemas(settings(prefix, registry))
    # then
    assert refused.value.status == 409
    assert subject in str(refused.value)
    assert not is_transient(refused.value)


def test_unavailable_registry_is_transient() -> None:
    """No server at the address, or no answer, is not a refusal."""
    with pytest.raises(RegistryUnavailable) as away:
        Client(f"http://127.0.0.1:{free_port()}").schema(1)
    assert is_transient(away.value)


def test_registry_may_be_switched_on_later(
    company: Tenten, configure: Callable[[Registry | None], Tenten], registry: Registry, prefix: str
) -> None:
    """Values written before carry fingerprints, later values registry ids; readers accept both."""
    # given a numbered customer, and an event that headquarters has not read
    with company.running("headquarters", "run") as hq, company.running("channel", "run", "houston") as houston:
        company.ok("customer", "create", "houston", "--first-name", "Ada")
        wait_until(lambda: len(numbered(company, "houston")) == 1, "Ada's number")
        end(hq)
        company.ok("customer", "create", "houston", "--first-name", "Ben")
        wait_until(lambda: len(values(company, prefix, "async-customers")) == 2, "Ben's event on its topic")
        end(houston)
    # when
    configure(registry)
    with (
        company.running("headquarters", "run"),
        company.running("channel", "run", "houston"),
        company.running("channel", "run", "boston"),
    ):
        company.ok("customer", "create", "boston", "--first-name", "Cy")
        # then
        wait_until(lambda: numbered(company, "houston") == {"Ada", "Ben", "Cy"}, "all three in houston")
        wait_until(lambda: numbered(company, "boston") == {"Ada", "Ben", "Cy"}, "all three in boston")
    events = values(company, prefix, "async-customers")
    assert framings(events) == {SINGLE_OBJECT: 2, CONFLUENT: 1}
    assert [event["customer"]["first_name"] for event in decoded(registry, events)] == ["Cy"]
    snapshots = values(company, prefix, "customers")
    assert framings(snapshots) == {SINGLE_OBJECT: 1, CONFLUENT: 2}
    assert {snapshot["customer"]["first_name"] for snapshot in decoded(registry, snapshots)} == {"Ben", "Cy"}
    replies = values(company, prefix, "channel-replies")
    assert framings(replies) == {SINGLE_OBJECT: 1, CONFLUENT: 2}
    assert {reply["channel_id"] for reply in decoded(registry, replies)} == {"houston", "boston"}


AWAY_SECONDS: Final = 6.0
"""Longer than the longest pause between two attempts."""


def wait_for_seconds(seconds: float) -> None:
    """Wait in a state that must not change."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "time to pass")


def warnings_of(company: Tenten) -> list[str]:
    """The log lines of the processes with a level above info."""
    return [line for line in company.log.splitlines() if "level=info" not in line]


def numbered(company: Tenten, store: str) -> set[str]:
    """The first names of a store's customers with an account number."""
    return set(column(company, store, "SELECT first_name FROM customers WHERE account_number IS NOT NULL"))


def versions(company: Tenten, store: str) -> list[int]:
    """The versions of a store's customers; 0 before the first snapshot."""
    return column(company, store, "SELECT version FROM customers ORDER BY version")


def column(company: Tenten, store: str, query: str) -> list[Any]:
    """The values of a query of one column on a store's database."""
    file = sqlite3.connect(company.directory / f"{store}.db", timeout=30)
    try:
        return [value for (value,) in file.execute(query)]
    finally:
        file.close()


def values(company: Tenten, prefix: str, topic: str) -> list[bytes]:
    """Every committed value of a topic, byte for byte."""
    servers = company.ok("config", "show", "--json").json["kafka"]["bootstrap.servers"]
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{prefix}reader",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = set(consumer.list_topics(prefix + topic, timeout=30).topics[prefix + topic].partitions)
        consumer.assign([TopicPartition(prefix + topic, partition, 0) for partition in partitions])
        found = []
        while partitions:
            message = consumer.poll(30)
            assert message is not None, "the broker does not answer"
            if message.error() is None:
                found.append(message.value() or b"")
            else:
                partitions.discard(message.partition() or 0)
        return found
    finally:
        consumer.close()


def framings(values: list[bytes]) -> Counter[bytes]:
    """The number of values by framing."""
    return Counter(SINGLE_OBJECT if value.startswith(SINGLE_OBJECT) else value[:1] for value in values)


def decoded(registry: Registry, values: list[bytes]) -> list[dict[str, Any]]:
    """The values in Confluent framing, decoded with the registry's schema of their id."""
    found = []
    for value in values:
        if value.startswith(CONFLUENT):
            schema = json.loads(registry.ask(f"/schemas/ids/{int.from_bytes(value[1:5], 'big')}")["schema"])
            record: Any = fastavro.schemaless_reader(BytesIO(value[5:]), fastavro.parse_schema(schema), None)
            found.append(record)
    return found
