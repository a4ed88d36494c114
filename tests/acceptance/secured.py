"""A broker that is secured as docs/how-to/secure-kafka.md says: the page's commands are executed."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tenten.local import start_kafka, stop_kafka
from tenten.local.java import fetch_program
from tenten.local.kafka import KAFKA_COORDINATES, QUICK_START
from tenten.local.ports import free_port
from tests.acceptance.cli import ROOT, SECONDS_MAX, Tenten
from tests.acceptance.test_readme import blocks_of
from tests.services import directory_for_server

STRANGER: Final = "stranger"
"""Has a certificate of the authority, and no privileges."""

PASSWORD: Final = "of-store-1"

_LEGAL_ENTITY: Final = """
[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = { format = "C-########", next = 1, continuous = true }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The page's blocks of code by language, in order, with the addresses and paths of this machine."""

    directory: Path
    certificates_port: int
    passwords_port: int
    blocks: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = (ROOT / "docs" / "how-to" / "secure-kafka.md").read_text(encoding="utf-8")
        for there, here in (
            ("DNS:kafka.example.com", "IP:127.0.0.1"),
            ("kafka.example.com:9093", f"127.0.0.1:{self.certificates_port}"),
            ("password=replace-this", f"password={PASSWORD}"),
            ("operator store-10", f"operator store-10 {STRANGER}"),
        ):
            assert there in text, there
            text = text.replace(there, here)
        for block in blocks_of(self.here(text)):
            self.blocks.setdefault(block.language, []).append(block.text)

    def here(self, text: str) -> str:
        """A text of any page, with the directory and the address for passwords of this machine."""
        for there, here in (
            ("/etc/tenten", str(self.directory)),
            ("kafka.example.com:9094", f"127.0.0.1:{self.passwords_port}"),
        ):
            assert there in text, there
            text = text.replace(there, here)
        return text

    @property
    def server_properties(self) -> dict[str, str]:
        """The properties of the broker. Beside its listeners a local broker has one without encryption, on which
        nobody has privileges.
        """
        properties = dict(line.split("=", 1) for line in self.blocks["properties"][0].splitlines())
        del properties["listeners"], properties["advertised.listeners"]
        properties["listener.security.protocol.map"] += ",PLAINTEXT:PLAINTEXT"
        return properties

    @property
    def listeners(self) -> dict[str, str]:
        """Its two listeners."""
        return {
            "TLS": f"SSL://127.0.0.1:{self.certificates_port}",
            "SCRAM": f"SASL_SSL://127.0.0.1:{self.passwords_port}",
        }

    def kafka_of(self, user: str) -> str:
        """`[kafka]` of a user, as the page has it for headquarters and both stores."""
        names = ["headquarters", "store-1", "store-10"]
        if user in names:
            return self.blocks["toml"][names.index(user)]
        return self.blocks["toml"][2].replace("store-10", user)

    def shell(self, command: str) -> str:
        """Type a block of commands into a shell, and return its output."""
        environment = {**os.environ, "PATH": f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-e", "-c", command],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """The broker, and the directories of headquarters and the stores."""

    page: Page
    broker_log: Path

    def tenten(self, user: str, *, prefix: str = "", database: str | None = None) -> Tenten:
        """A directory for this user; with the database it is headquarters', which knows both stores."""
        stores = [user] if user.startswith("store-") else ["store-1", "store-10"]
        parts = [
            f'prefix = "{prefix}"\npartitions = 2',
            self.page.kafka_of(user),
            "" if database is None else f'[headquarters]\ndatabase = "{database}"',
            _LEGAL_ENTITY,
            *(f'[channels.{name}]\nlegal_entity = "usrt"\ndatabase = "sqlite:///{name}.db"' for name in stores),
        ]
        directory = self.page.directory / f"{prefix}{user}"
        directory.mkdir(exist_ok=True)
        (directory / "tenten.toml").write_text("\n".join(parts))
        environment = {"KAFKA_SASL_PASSWORD": PASSWORD} if user == "store-1" else {}
        return Tenten(directory=directory, environment=environment)

    def type_in(self, company: Tenten, number: int) -> None:
        """Type the page's block of `tenten` commands with this number, counted from 0."""
        tenten, *words = shlex.split(self.page.blocks["sh"][number])
        assert tenten == "tenten"
        company.ok(*words)

    def denials(self) -> list[str]:
        """What the broker has denied so far, a line each."""
        lines = self.broker_log.read_text(errors="replace").splitlines()
        return [line.partition("Principal = ")[2] for line in lines if " is Denied operation = " in line]


@contextmanager
def secured_broker() -> Iterator[Secured]:
    """The broker during the block; its users, topics and privileges are those of the page."""
    with directory_for_server("secured") as directory:
        page = Page(directory=directory, certificates_port=free_port(), passwords_port=free_port())
        _make_tool(directory / "bin")
        for command in page.blocks["sh"][:3]:
            page.shell(command)
        for name, text in zip(("admin", "store-1"), page.blocks["properties"][1:], strict=True):
            (directory / f"{name}.properties").write_text(text)
        kafka = directory / "kafka"
        try:
            start_kafka(kafka, properties=page.server_properties, listeners=page.listeners)
            secured = Secured(page=page, broker_log=kafka / "broker.log")
            company = secured.tenten("headquarters")
            for number in (3, 4):
                secured.type_in(company, number)
            page.shell(page.blocks["sh"][5])
            yield secured
        finally:
            stop_kafka(kafka, grace_seconds=0)


def _make_tool(programs: Path) -> None:
    """`kafka-configs.sh`, which a Kafka that was installed from its archive has."""
    programs.mkdir()
    java = [*fetch_program(KAFKA_COORDINATES, "Apache Kafka", lambda _: None), *QUICK_START]
    tool = programs / "kafka-configs.sh"
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(java)} kafka.admin.ConfigCommand "$@"\n')
    tool.chmod(0o755)
