"""Printing of access control lists and quotas: as tables, for Strimzi, and as commands of Kafka's own tool."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal

from tenten.cli.output import print_json, print_line, print_table, report
from tenten.runtime.errors import SettingsError
from tenten.schemas.privileges import CHANNEL_QUOTA

if TYPE_CHECKING:
    from tenten.kafka.acls import Acl, AclChanges, User

StrimziAuthentication = Literal["scram-sha-512", "tls"]

_KUBERNETES_NAME: Final = re.compile("[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_STRIMZI_TYPES: Final = {"topic": "topic", "group": "group", "transactional id": "transactionalId"}
_STRIMZI_PATTERNS: Final = {"literal": "literal", "prefixed": "prefix"}
_COLUMNS: Final = ("principal", "resource", "name", "pattern", "operations")


def print_acls(users: "Sequence[User]", *, as_json: bool) -> None:
    """Print every access control list of these users."""
    acls = [acl for user in users for acl in user.acls]
    if as_json:
        print_json(acls)
        return
    print_table(_COLUMNS, _rows(acls))
    if any(user.is_channel for user in users):
        report("Each channel should have quotas, too: `tenten topics acls --quotas` prints the commands")


def print_changes(changes: "AclChanges", *, as_json: bool) -> None:
    """Print what was added, and what is surplus."""
    if as_json:
        print_json(changes)
        return
    if changes.added:
        print_table(_COLUMNS, _rows(changes.added))
    report(f"Added {len(changes.added)}; {len(changes.kept)} existed already")
    if changes.surplus:
        print_line("")
        report(
            "These give more than the catalogue, or forbid something. They have not been changed: check each, and "
            "delete it with kafka-acls.sh unless you need it"
        )
        columns = (*_COLUMNS, "permission", "host")
        print_table(columns, [(*row, acl.permission, acl.host) for acl in changes.surplus for row in _rows([acl])])


def _rows(acls: "Iterable[Acl]") -> Iterator[tuple[str, ...]]:
    """One row for all operations with a resource."""
    for resource, group in groupby(acls, lambda acl: (acl.principal, acl.resource, acl.name, acl.pattern)):
        yield (*resource, ", ".join(acl.operation.upper() for acl in group))


def print_quotas(users: "Sequence[User]", bootstrap_servers: str, *, as_json: bool) -> None:
    """Print the quotas of the channels: commands of Kafka's own tool, because the client library cannot set any.

    Raises: `SettingsError` for a principal that is not a user.
    """
    quota = asdict(CHANNEL_QUOTA)
    channels = [user for user in users if user.is_channel]
    if as_json:
        print_json([{"principal": user.principal, **quota} for user in channels])
        return
    added = ",".join(f"{name}={value}" for name, value in quota.items())
    for user in channels:
        kind, _, name = user.principal.partition(":")
        if kind != "User":
            raise SettingsError(f"Kafka has quotas for users only; {user.principal} is not one")
        print_line(
            f"kafka-configs.sh --bootstrap-server {shlex.quote(bootstrap_servers)} --command-config admin.properties "
            f"--alter --entity-type users --entity-name {shlex.quote(name)} --add-config {added}"
        )


def print_strimzi(users: "Sequence[User]", cluster: str, authentication: StrimziAuthentication) -> None:
    """Print a `KafkaUser` for each user, for the operator Strimzi. Raises: `SettingsError` for a name it cannot have.

    Source: https://strimzi.io/docs/operators/latest/configuring.html#type-KafkaUser-reference
    """
    for user in users:
        if not _KUBERNETES_NAME.fullmatch(user.name):
            raise SettingsError(f"{user.name} cannot be the name of a KafkaUser: Kubernetes allows no _ in names")
        for line in _kafka_user(user, cluster, authentication):
            print_line(line)


def _kafka_user(user: "User", cluster: str, authentication: StrimziAuthentication) -> Iterator[str]:
    yield "---"
    yield "apiVersion: kafka.strimzi.io/v1"
    yield "kind: KafkaUser"
    yield "metadata:"
    yield f"  name: {_text(user.name)}"
    yield "  labels:"
    yield f"    strimzi.io/cluster: {_text(cluster)}"
    yield "spec:"
    yield "  authentication:"
    yield f"    type: {authentication}"
    if user.is_channel:
        yield "  quotas:"
        yield f"    producerByteRate: {CHANNEL_QUOTA.producer_byte_rate}"
        yield f"    consumerByteRate: {CHANNEL_QUOTA.consumer_byte_rate}"
        yield f"    requestPercentage: {CHANNEL_QUOTA.request_percentage}"
    yield "  authorization:"
    yield "    type: simple"
    yield "    acls:"
    for (resource, name, pattern), acls in groupby(user.acls, lambda acl: (acl.resource, acl.name, acl.pattern)):
        yield "      - resource:"
        yield f"          type: {_STRIMZI_TYPES[resource]}"
        yield f"          name: {_text(name)}"
        yield f"          patternType: {_STRIMZI_PATTERNS[pattern]}"
        yield f"        operations: [{', '.join(_strimzi_operation(acl.operation) for acl in acls)}]"
        yield '        host: "*"'


def _strimzi_operation(operation: str) -> str:
    return operation.title().replace("_", "")


def _text(value: str) -> str:
    """A quoted text of YAML, which has those of JSON."""
    return json.dumps(value)
