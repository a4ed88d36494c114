"""The privileges that the catalogue gives each role, and how `tenten topics acls` prints them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenten import workers
from tenten.kafka.acls import users
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings
from tenten.schemas.privileges import CHANNEL_QUOTA, WORKER_GROUPS, privileges
from tenten.schemas.topics import ALL, JOINS, SCHEMAS, Role
from tenten.workers import AT_HEADQUARTERS, HEADQUARTERS, IN_CHANNEL, TRANSACTIONS, Worker
from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, SEATTLE, Tenten

WORKERS = {
    Role.CUSTOMERS_WORKER: (HEADQUARTERS,),
    Role.TRANSACTIONS_WORKER: (TRANSACTIONS,),
    Role.CHANNEL: IN_CHANNEL,
}
STORE = {
    ("topic", "async-customers", "WRITE"),
    ("topic", "retail-transactions", "WRITE"),
    ("topic", "channel-status", "WRITE"),
    ("topic", "joins", "WRITE"),
    ("topic", "customers", "READ"),
    ("topic", "customers", "DESCRIBE_CONFIGS"),
    ("topic", "channel-replies", "READ"),
    ("topic", "transaction-replies", "READ"),
    ("topic", "channel-settings", "READ"),
    ("topic", "headquarters-status", "READ"),
    ("topic", "schemas", "READ"),
    ("group", "channel.store-1", "READ"),
}
"""All that a store may do: who holds its credentials may do this, too."""


@pytest.fixture
def company(tmp_path: Path) -> Tenten:
    """Two channels, a prefix, and no broker."""
    (tmp_path / "tenten.toml").write_text('prefix = "shop."\n' + LEGAL_ENTITY + HOUSTON + SEATTLE)
    return Tenten(directory=tmp_path)


def test_store_has_exactly_the_privileges_that_it_needs() -> None:
    """Each of them is literal: one that began with `store-1` would include `store-10`."""
    found = privileges(Role.CHANNEL, "store-1")
    assert {
        (privilege.resource.value, privilege.name, operation.value)
        for privilege in found
        for operation in privilege.operations
    } == STORE
    assert not any(privilege.is_prefix for privilege in found)


@pytest.mark.parametrize("role", WORKERS, ids=lambda role: role.value)
def test_roles_may_read_and_write_what_their_workers_declare(role: Role) -> None:
    """A worker may write its topics and no others, and read its inputs. `tenten store join` writes `joins`."""
    declared: tuple[Worker, ...] = WORKERS[role]
    joining = {JOINS.name} if role is Role.CHANNEL else set()
    assert {topic.name for topic in ALL if role in topic.writers} == {
        topic.name for worker in declared for topic in worker.writes
    } | joining
    inputs = {topic.name for worker in declared for topic in worker.inputs} | {SCHEMAS.name}
    assert inputs <= {topic.name for topic in ALL if role in topic.readers}


def test_groups_of_roles_are_those_of_the_workers() -> None:
    """The privileges name the groups that the workers join."""
    joined = {worker.group for worker in AT_HEADQUARTERS}
    assert set(WORKER_GROUPS.values()) == joined
    assert {worker.group for worker in workers.IN_CHANNEL if worker.group is not None} == {"channel.{channel}"}


def test_acls_have_the_prefix_and_the_principals_of_all_users(company: Tenten) -> None:
    """Headquarters' workers, the operator, and each channel have a principal of their own."""
    acls = company.ok("topics", "acls", "--json").json
    assert {acl["principal"] for acl in acls} == {
        "User:headquarters",
        "User:operator",
        "User:houston",
        "User:seattle",
    }
    assert all(acl["name"].startswith("shop.") for acl in acls)
    assert {(acl["permission"], acl["host"]) for acl in acls} == {("allow", "*")}
    written = {acl["principal"] for acl in acls if acl["name"] == "shop.schemas" and acl["operation"] == "write"}
    assert written == {"User:headquarters", "User:operator"}


def test_acls_of_a_channel_that_is_not_in_the_settings(company: Tenten) -> None:
    """A store's user is made before the store; a template gives the principal of a certificate."""
    words = ("topics", "acls", "--channel", "boston", "--principal", "User:CN={name},O=Shop", "--json")
    acls = company.ok(*words).json
    assert {acl["principal"] for acl in acls} == {"User:CN=boston,O=Shop"}
    assert {(acl["resource"], acl["name"]) for acl in acls if acl["resource"] != "topic"} == {
        ("group", "shop.channel.boston")
    }


def test_two_users_never_have_the_same_principal() -> None:
    """A channel named `operator` would have the privileges of the operator."""
    with pytest.raises(SettingsError, match="operator"):
        users(Settings(), ["operator"], only_channels=True)
    with pytest.raises(SettingsError, match="headquarters"):
        users(Settings(), ["headquarters"], only_channels=True)
    with pytest.raises(SettingsError, match=r"\{name\}"):
        users(Settings(), ["houston", "seattle"], "User:stores", only_channels=True)


def test_strimzi_users_have_the_same_privileges(company: Tenten) -> None:
    """The output is YAML, one KafkaUser for each user, with the quotas of channels."""
    printed = company.ok("topics", "acls", "--strimzi", "--strimzi-cluster", "retail").out
    found = {resource["metadata"]["name"]: resource for resource in yaml.safe_load_all(printed)}
    assert found.keys() == {"headquarters", "operator", "houston", "seattle"}
    acls = company.ok("topics", "acls", "--json").json
    for name, resource in found.items():
        assert resource["metadata"]["labels"] == {"strimzi.io/cluster": "retail"}
        expected = {
            (acl["name"], acl["pattern"].removesuffix("ed"), acl["operation"].replace("_", ""))
            for acl in acls
            if acl["principal"] == f"User:{name}"
        }
        assert set(strimzi_privileges(resource)) == expected
    assert found["houston"]["spec"]["quotas"]["producerByteRate"] == CHANNEL_QUOTA.producer_byte_rate
    assert "quotas" not in found["headquarters"]["spec"]


def strimzi_privileges(resource: Any) -> list[tuple[str, str, str]]:
    """Name, pattern and operation of each privilege of a KafkaUser."""
    return [
        (acl["resource"]["name"], acl["resource"]["patternType"], operation.lower())
        for acl in resource["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    ]


def test_quotas_are_for_channels(company: Tenten) -> None:
    """One command of Kafka's own tool for each channel."""
    lines = company.ok("topics", "acls", "--quotas").out.splitlines()
    assert [line.split(" --entity-name ")[1].split()[0] for line in lines] == ["houston", "seattle"]
    values = json.loads(company.ok("topics", "acls", "--quotas", "--json").out)
    assert [quota["principal"] for quota in values] == ["User:houston", "User:seattle"]
    assert f"consumer_byte_rate={values[0]['consumer_byte_rate']}" in lines[0]
