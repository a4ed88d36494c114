"""A scene for tests of the dashboard: headquarters, a store and the dashboard as processes, and a browser.

One for a whole file of tests: each test uses a store, customers and records of its own.
"""

import os
import random
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
from confluent_kafka import Producer
from playwright.sync_api import Browser, BrowserContext, Page, Request
from psycopg import sql

from tests.acceptance.served import address_in
from tests.databases import channel_tables, create_from_template, drop_database
from tests.faults.avro import encode
from tests.faults.journal import Operation, Writer
from tests.faults.traffic import Store
from tests.forked import ForkedProcess, ended_with_block, fork
from tests.sales import Till
from tests.scenes import Scene, set_scene
from tests.services import delete_topics
from tests.waiting import wait_for

BROWSER_MILLISECONDS: Final = 60_000
OPERATOR: Final = "Grace Hopper"
VIEWER: Final = "Vint Cerf"

PAGES: Final = (
    "/",
    "/customers",
    "/changes",
    "/changes?tab=held",
    "/transactions",
    "/transactions?tab=orders",
    "/dead-letters?show=all",
    "/channels",
    "/channels/houston",
    "/checks",
    "/actions",
)
"""Every page without parameters, and those of tabs."""


@dataclass(slots=True, kw_only=True)
class DashboardScene:
    """What the tests of a file share."""

    scene: Scene
    directory: Path
    browser: Browser
    address: str = ""
    """Of the dashboard, as a URL."""
    contexts: dict[str, BrowserContext] = field(default_factory=dict)
    """Of those who have signed in, by role."""
    left_machine: list[str] = field(default_factory=list)
    """Requests of pages that were not for the dashboard."""
    errors: list[str] = field(default_factory=list)
    """What browsers reported as errors, such as violations of the content security policy."""

    def token(self, role: str) -> str:
        """The token of this role, from its file."""
        return (self.directory / f"{role}.token").read_text().strip()

    def client(self, **more: Any) -> httpx.Client:
        """A client without session."""
        return httpx.Client(base_url=self.address, timeout=60, **more)

    def context(self, role: str, **options: Any) -> BrowserContext:
        """A browser that has signed in in this role."""

        def note_request(request: Request) -> None:
            if not request.url.startswith((self.address, "data:")):
                self.left_machine.append(request.url)

        context = self.browser.new_context(**options)
        context.set_default_timeout(BROWSER_MILLISECONDS)
        context.on("request", note_request)
        page = context.new_page()
        page.goto(f"{self.address}/login")
        page.get_by_label("Your name").fill(OPERATOR if role == "operator" else VIEWER)
        page.get_by_label("Access token").fill(self.token(role))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.address}/")
        page.close()
        return context

    def page(self, path: str = "/", role: str = "operator") -> Page:
        """A page of the dashboard, in a browser that stays signed in."""
        if role not in self.contexts:
            self.contexts[role] = self.context(role)
        page = self.contexts[role].new_page()
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.goto(self.address + path)
        return page

    def close_pages(self) -> None:
        """Close all pages: each holds a connection, of which a browser has six."""
        for context in self.contexts.values():
            for page in context.pages:
                page.close()

    def close(self) -> None:
        """Close the browsers of those who have signed in."""
        for context in self.contexts.values():
            context.close()

    def store(self, channel: str) -> Store:
        """Events of a channel, which no other test sends."""
        return Store(channel_id=channel, legal_entity="usrt", rng=random.Random(secrets.randbits(64)))

    def till(self, channel: str) -> Till:
        """Sales of a channel, which no other test sends."""
        return Till(channel_id=channel, rng=random.Random(secrets.randbits(64)))

    def sell(self, *transactions: dict[str, Any]) -> None:
        """Write transactions as a store does."""
        writer = Writer(self.scene.bootstrap_servers, self.scene.prefix, self.scene.journal)
        for transaction in transactions:
            writer.sell(transaction)
        writer.flush()

    def write(self, topic: str, key: bytes, value: bytes) -> None:
        """Write any record."""
        writer = Writer(self.scene.bootstrap_servers, self.scene.prefix, self.scene.journal)
        writer.write(Operation(topic=topic, key=key, value=value))
        writer.flush()

    def beat(self, channel: str, *, unsent_for: timedelta | None = None, **fields: Any) -> None:
        """Write a heartbeat of a channel, whose oldest unsent change is this old."""
        now = datetime.now(UTC)
        heartbeat = {
            "channel_id": channel,
            "release": "0.9.9",
            "sent_at": now,
            "oldest_unsent_at": None if unsent_for is None else now - unsent_for,
            "oldest_unsettled_at": None,
            "unsent": 0 if unsent_for is None else 7,
            "unsettled": 0,
            "customers": 41,
            "complete_at": now,
            "problems": [],
            **fields,
        }
        producer = Producer({"bootstrap.servers": self.scene.bootstrap_servers})
        producer.produce(f"{self.scene.prefix}channel-status", encode("Heartbeat", heartbeat), channel.encode())
        assert producer.flush(60) == 0

    def actions(self) -> list[dict[str, Any]]:
        """The record of operators' actions, without sign-ins, the oldest first."""
        return self.scene.query("SELECT * FROM operator_actions WHERE action <> 'sign_in' ORDER BY action_id")

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """Headquarters' database accepts no connection during the block, and ends those that it has."""
        name = str(psycopg.conninfo.conninfo_to_dict(self.scene.url)["dbname"])
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        with psycopg.connect(self.scene.url.replace(name, "postgres"), autocommit=True) as server:
            server.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            try:
                yield
            finally:
                server.execute(allow.format(sql.Identifier(name), sql.SQL("true")))

    @contextmanager
    def process(self, *words: str) -> Iterator[tuple[ForkedProcess, Path]]:
        """Run a command during the block; its log."""
        log = self.directory / f"{'-'.join(words[:2])}.log"
        started = fork(words, directory=self.directory, log=log, environment=self._environment())
        with ended_with_block(started) as process:
            yield process, log

    def _environment(self) -> Mapping[str, str]:
        elsewhere = ("TENTEN_FAILPOINT", "TENTEN_HEADQUARTERS_URL", "KAFKA_BOOTSTRAP_SERVERS", "TENTEN_OPERATOR")
        own = {name: value for name, value in os.environ.items() if name not in elsewhere}
        return {**own, "TENTEN_CONFIG": str(self.scene.toml), "TENTEN_LOG_FORMAT": "logfmt"}


@contextmanager
def dashboard_scene(
    directory: Path, bootstrap_servers: str, postgresql: str, browser: Browser
) -> Iterator[DashboardScene]:
    """Headquarters with the stores houston, which runs, dallas and munich, which do not; the dashboard."""
    prefix, name = f"t{secrets.token_hex(4)}-", f"t{secrets.token_hex(6)}"
    url = create_from_template(postgresql, name, "headquarters")
    scene = set_scene(directory, bootstrap_servers, prefix, url)
    with scene.toml.open("a") as toml:
        toml.write('\n[http]\nproxy_user_header = "X-User"\nproxy_operators = ["proxied"]\n')
    channel_tables(scene.settings.channel("houston").database)
    with ExitStack() as ends:
        ends.callback(drop_database, postgresql, name)
        ends.callback(delete_topics, bootstrap_servers, prefix)
        made = DashboardScene(scene=scene, directory=directory, browser=browser)
        ends.callback(made.close)
        for words in (("headquarters", "run"), ("transactions", "run"), ("channel", "run", "houston")):
            ends.enter_context(made.process(*words))
        process, log = ends.enter_context(made.process("headquarters", "web", "--http", "127.0.0.1:0"))

        def is_served() -> bool:
            assert process.poll() is None, log.read_text()
            return address_in(log) is not None

        wait_for(is_served, "the dashboard")
        made.address = f"http://{address_in(log)}"
        yield made


def search(page: Page, words: str) -> None:
    """Search for a customer."""
    page.locator("#words").fill(words)
    page.get_by_role("button", name="Search").click()
