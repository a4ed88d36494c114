"""Companies with a broker, databases or settings that fail, for tests of refusals, outages and full disks."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tenten.local import (
    LocalKafka,
    start_kafka,
    stop_kafka,
)
from tenten.local.ports import free_port
from tests.acceptance.cli import Ended, Tenten, wait_until
from tests.services import directory_for_server

PROMPT_SECONDS: Final = 90.0
"""The longest time of a command that does not wait, on a busy machine."""

PASSWORD: Final = "right"
MECHANISM: Final = "SCRAM-SHA-256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker of a test module's own: it may be stopped, and has a second listener with users and privileges."""

    directory: Path
    kafka: LocalKafka
    guarded_port: int

    @property
    def address(self) -> str:
        """The address of the listener without authentication."""
        return self.kafka.bootstrap_servers

    def start(self) -> None:
        """Start it at its addresses, unless it is running."""
        restarted = start_kafka(self.directory, properties=GUARDED, listeners=guarded_listener(self.guarded_port))
        assert restarted.bootstrap_servers == self.kafka.bootstrap_servers, (
            "another program has taken the broker's port"
        )

    def stop(self, grace_seconds: float) -> None:
        """Stop it; without grace by SIGKILL."""
        assert stop_kafka(self.directory, grace_seconds)

    def toml(self, user: str, password: str = PASSWORD) -> str:
        """`[kafka]` for a user of the second listener."""
        return (
            f'[kafka]\n"bootstrap.servers" = "127.0.0.1:{self.guarded_port}"\n"security.protocol" = "SASL_PLAINTEXT"\n'
            f'"sasl.mechanism" = "{MECHANISM}"\n"sasl.username" = "{user}"\n"sasl.password" = "{password}"\n'
        )

    def make_user(self, name: str) -> None:
        """Create a user without privileges."""
        admin = AdminClient({"bootstrap.servers": self.address})
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        user = UserScramCredentialUpsertion(name, credentials, PASSWORD.encode())
        for future in admin.alter_user_scram_credentials([user]).values():
            future.result(PROMPT_SECONDS)

    def allow(self, user: str, kind: ResourceType, prefix: str) -> None:
        """Allow a user all operations on resources of this kind whose names have this prefix."""
        binding = AclBinding(
            kind,
            prefix,
            ResourcePatternType.PREFIXED,
            f"User:{user}",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        admin = AdminClient({"bootstrap.servers": self.address})
        for future in admin.create_acls([binding]).values():
            future.result(PROMPT_SECONDS)


GUARDED: Final = {
    "listener.name.guarded.sasl.enabled.mechanisms": MECHANISM,
    f"listener.name.guarded.{MECHANISM.lower()}.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
"""A broker with two listeners; the first, which the broker itself uses, needs no password."""


def guarded_listener(port: int) -> dict[str, str]:
    """The second listener."""
    return {"GUARDED": f"SASL_PLAINTEXT://127.0.0.1:{port}"}


@contextmanager
def own_broker() -> Iterator[Broker]:
    """A broker of a test module's own."""
    with directory_for_server("guarded") as directory:
        port = free_port()
        try:
            kafka = start_kafka(directory, properties=GUARDED, listeners=guarded_listener(port))
            yield Broker(directory=directory, kafka=kafka, guarded_port=port)
        finally:
            stop_kafka(directory, grace_seconds=0)


LEGAL_ENTITY: Final = """
[legal_entities.{name}]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = {{ format = "{name}-########", next = 1, continuous = true }}
"""
CHANNEL: Final = """
[channels.{name}]
legal_entity = "{legal_entity}"
database = "{database}"
"""


def make(
    directory: Path,
    *,
    prefix: str,
    kafka: str,
    headquarters: str | None = None,
    channels: dict[str, str] | None = None,
    database: str = "sqlite:///{name}.db",
) -> Tenten:
    """A directory with a `tenten.toml`. `channels` are legal entities by channel."""
    channels = {"houston": "usrt"} if channels is None else channels
    parts = [f'prefix = "{prefix}"', kafka]
    if headquarters is not None:
        parts.append(f'[headquarters]\ndatabase = "{headquarters}"')
    parts += [LEGAL_ENTITY.format(name=name) for name in sorted(set(channels.values()))]
    parts += [
        CHANNEL.format(name=name, legal_entity=entity, database=database.format(name=name))
        for name, entity in channels.items()
    ]
    directory.mkdir(exist_ok=True)
    (directory / "tenten.toml").write_text("\n".join(parts))
    return Tenten(directory=directory)


def plain(address: str) -> str:
    """`[kafka]` for a broker without authentication."""
    return f'[kafka]\n"bootstrap.servers" = "{address}"\n'


def refuses(ended: Ended, code: int, *words: str) -> None:
    """Fail unless a command ended with this code, nothing on stdout, and one sentence with these words on stderr."""
    lines = [line for line in ended.err.splitlines() if not line.startswith("timestamp=")]
    assert ended.code == code, ended
    assert ended.out == "", ended
    assert len(lines) == 1, ended
    assert lines[0].startswith("tenten: "), ended
    assert [word for word in words if word not in lines[0]] == [], lines[0]


def status_of(store: Tenten, channel: str, customer_id: str) -> str:
    """The status of a customer in a channel."""
    return str(store.ok("customer", "show", channel, customer_id, "--json").json["status"])


def create(store: Tenten, name: str) -> None:
    """A clerk creates a customer, without waiting."""
    began = time.monotonic()
    assert store.ok("customer", "create", "houston", "--first-name", name, "--json").json["status"] == "pending"
    assert time.monotonic() - began < PROMPT_SECONDS


def numbered(store: Tenten) -> set[str]:
    """The first names of houston's customers with an account number."""
    with closing(sqlite3.connect(store.directory / "houston.db", timeout=30)) as file:
        return {name for (name,) in file.execute("SELECT first_name FROM customers WHERE account_number IS NOT NULL")}


def complaints(tenten: Tenten) -> list[str]:
    """The log lines of the processes above level info, without those about stores that have not joined."""
    lines = tenten.log.splitlines()
    return [line for line in lines if "level=info" not in line and "event=unsigned_records_accepted" not in line]


def pass_by(seconds: float) -> None:
    """Let time pass in which nothing must happen."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "time to pass")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition on a loop variable."""
    wait_until(condition, what)
