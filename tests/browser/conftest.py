"""A browser, and a shop with a broker that can be stopped, headquarters, and a store with its screen.

All of it is started once a session. Every page belongs to a context that records its requests: none may leave this
machine.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tenten import local
from tenten.local import create_database
from tenten.local.ports import free_port
from tests.acceptance.cli import ROOT, Tenten
from tests.browser.dashboard_scene import DashboardScene, dashboard_scene
from tests.databases import drop_database
from tests.services import directory_for_server
from tests.waiting import wait_for

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TIMEOUT_MS: Final = 60_000
"""Longer than anything takes on a busy machine."""

Scheme = Literal["light", "dark"]
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
WIDTHS: Final = (1024, 390)

_SETTINGS: Final = """
prefix = "browser-"
partitions = 3

[kafka]
"bootstrap.servers" = "{bootstrap_servers}"

[headquarters]
database = "{headquarters}"

[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = {{ format = "C-########", next = 1, continuous = true }}
customer_groups = {groups}

[legal_entities.usrt.attributes.shoe_size]
kind = "decimal"
label = "Shoe size"
minimum = 15
maximum = 60

[channels.houston]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///houston.db"
time_zone = "America/Chicago"
"""


@pytest.fixture(scope="session")
def dashboard(
    tmp_path_factory: pytest.TempPathFactory, bootstrap_servers: str, postgresql: str, browser: Browser
) -> Iterator[DashboardScene]:
    """Headquarters with its dashboard, for all files of tests of it."""
    with dashboard_scene(tmp_path_factory.mktemp("dashboard"), bootstrap_servers, postgresql, browser) as scene:
        yield scene


@pytest.fixture(scope="session")
def watcher(dashboard: DashboardScene) -> Page:
    """A page of the overview that is open from the first test on; munich was heard from once, just before that."""
    page = dashboard.context("viewer").new_page()
    page.goto(dashboard.address)
    dashboard.beat("munich")
    expect(page.locator("#store-munich")).to_have_class("good")
    page.evaluate("window.isTheSamePage = true")
    return page


@pytest.fixture
def nothing_leaves_the_machine(dashboard: DashboardScene, watcher: Page) -> Iterator[None]:
    """No page of any test asks another server for anything, or breaks the content security policy."""
    yield
    dashboard.close_pages()
    assert dashboard.left_machine == []
    assert [error for error in dashboard.errors if "status of 4" not in error] == []


@dataclass(slots=True, kw_only=True)
class Shop:
    """A broker of its own, headquarters, and the store houston with its screen."""

    tenten: Tenten
    broker: Path
    headquarters: str
    bootstrap_servers: str
    address: str
    """The address of the store's screen."""

    @property
    def token(self) -> str:
        """With which a clerk signs in."""
        return (self.tenten.directory / "api.token").read_text().strip()

    def settings(self, groups: str) -> str:
        """The settings file, with these customer groups."""
        return _SETTINGS.format(bootstrap_servers=self.bootstrap_servers, headquarters=self.headquarters, groups=groups)

    def stop_broker(self) -> None:
        """Cut the store off."""
        local.stop_kafka(self.broker, grace_seconds=0)

    def start_broker(self) -> None:
        """Connect it again. Idempotent."""
        local.start_kafka(self.broker, heap_megabytes=512)


@pytest.fixture(scope="session")
def shop(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Everything that a store needs, running."""
    directory = tmp_path_factory.mktemp("shop")
    database = "browser_headquarters"
    with directory_for_server("browser") as broker, ExitStack() as running:
        kafka = local.start_kafka(broker, heap_megabytes=512)
        running.callback(local.stop_kafka, broker, 0)
        shop = Shop(
            tenten=Tenten(directory=directory),
            broker=broker,
            headquarters=create_database(postgresql, database),
            bootstrap_servers=kafka.bootstrap_servers,
            address=f"http://127.0.0.1:{free_port()}",
        )
        running.callback(drop_database, postgresql, database)
        (directory / "tenten.toml").write_text(shop.settings('["10", "20"]'))
        shop.tenten.ok("topics", "apply")
        shop.tenten.ok("database", "upgrade", "all")
        for words in (
            ("headquarters", "run"),
            ("transactions", "run"),
            ("channel", "run", "houston", "--http", shop.address.removeprefix("http://")),
        ):
            running.enter_context(shop.tenten.running(*words))
        wait_for(lambda: "event=http_started" in shop.tenten.log, "the screen")
        yield shop
        shop.start_broker()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    assert found, "these tests need a Chromium: apt-get install chromium, or any of " + ", ".join(_BROWSERS)
    expect.set_options(timeout=_TIMEOUT_MS)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, in containers.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = playwright.chromium.launch(executable_path=found, args=arguments)
        yield launched
        launched.close()


class NewContext(Protocol):
    """Opens a browser's context, as of another person or another machine."""

    def __call__(self, **options: Any) -> BrowserContext: ...


@pytest.fixture
def new_context(browser: Browser) -> Iterator[NewContext]:
    """Contexts of this test. At its end: no request has left this machine, and no script has failed."""
    contexts: list[BrowserContext] = []
    hosts: set[str | None] = set()
    failures: list[str] = []

    def create(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        context.set_default_timeout(_TIMEOUT_MS)
        context.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        context.on("weberror", lambda error: failures.append(str(error.error)))
        contexts.append(context)
        return context

    yield create
    for context in contexts:
        context.close()
    # Images in the page itself have no host.
    assert hosts - {None} <= {"127.0.0.1"}
    assert not failures


@pytest.fixture
def clerk(shop: Shop, new_context: NewContext) -> Page:
    """The page of a clerk, Ana, who has signed in."""
    return sign_in(shop, new_context().new_page(), "Ana")


def sign_in(shop: Shop, page: Page, name: str) -> Page:
    """Sign in as this clerk."""
    page.goto(f"{shop.address}/login")
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Access token").fill(shop.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{shop.address}/")
    return page


def register(shop: Shop, page: Page, **fields: str) -> str:
    """Register a customer with these fields, by their names in the form; returns the address of the customer's page."""
    page.goto(f"{shop.address}/customers/new")
    page.locator("summary").click()
    for name, value in fields.items():
        field = page.locator(f'[name="{name}"]')
        if field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    page.get_by_role("button", name="Save customer").click()
    page.wait_for_url(re.compile("/customers/[0-9a-f-]{36}"))
    return page.url.partition("?")[0]


def take_pictures(page: Page, name: str, *schemes: Scheme) -> None:
    """Write a picture of the page for each width and colour scheme."""
    directory = Path(os.environ.get("TENTEN_PICTURES", ROOT / "build" / "pictures"))
    directory.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    for scheme in schemes or SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 768})
            page.screenshot(path=directory / f"{name}-{width}-{scheme}.png", full_page=True)
    if size is not None:
        page.set_viewport_size(size)
