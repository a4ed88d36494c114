"""Long lists of the dashboard, in pages; every list has more rows than one page."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Final
from urllib.parse import urljoin

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.browser.dashboard_scene import DashboardScene
from tests.faults.avro import encode
from tests.statement_rows import insert_statement
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_leaves_the_machine")

ROWS: Final = 205
"""Of each list: three pages."""

_ROW: Final = re.compile('id="[^"]+"|paged [0-9]+|title="[0-9a-f-]{36}"')
"""What names the row of a list."""

_ACTIONS: Final = """
    INSERT INTO operator_actions (acted_at, operator, via, action, subject, outcome)
    SELECT now(), 'Grace Hopper', 'token', 'show_dead_letter', 'paged ' || number, 'done'
    FROM generate_series(1, %s) AS number
    """


def rejected(dashboard: DashboardScene) -> None:
    """Events of dallas with a name that is too long."""
    store = dashboard.store("dallas")
    dashboard.scene.send(*(store.create(first_name="x" * 500) for _ in range(ROWS)))


def held(dashboard: DashboardScene) -> None:
    """Events of a channel that headquarters does not have."""
    store = dashboard.store("atlantis")
    dashboard.scene.send(*(store.create() for _ in range(ROWS)))


def sales(dashboard: DashboardScene) -> None:
    """Sales of dallas to nobody."""
    till = dashboard.till("dallas")
    dashboard.sell(*(till.sale() for _ in range(ROWS)))


def statements(dashboard: DashboardScene) -> None:
    """Statements of dallas; some came at the same time."""
    for number in range(ROWS):
        ago = timedelta(seconds=number // 3)
        insert_statement(dashboard.scene.url, "posted", channel="dallas", day="2025-01-01", number=number + 1, ago=ago)


def dead_letters(dashboard: DashboardScene) -> None:
    """Records that nobody can read."""
    for number in range(ROWS):
        dashboard.write("async-customers", b"paged", b"rubbish %d" % number)


def actions(dashboard: DashboardScene) -> None:
    """Rows of the record of actions."""
    with psycopg.connect(dashboard.scene.url) as headquarters:
        headquarters.execute(_ACTIONS, [ROWS])


@pytest.mark.parametrize(
    ("path", "make", "first", "older"),
    [
        ("/changes?channel=dallas&days=30", rejected, "Newest", "Older"),
        ("/changes?tab=held&channel=atlantis", held, "Oldest", "Newer"),
        ("/transactions?tab=orders&channel=dallas&status=synchronized", sales, "Newest", "Older"),
        ("/transactions?channel=dallas&status=posted", statements, "Newest", "Older"),
        ("/dead-letters", dead_letters, "Newest", "Older"),
        ("/actions", actions, "Newest", "Older"),
    ],
    ids=["rejected", "held", "sales", "statements", "dead-letters", "actions"],
)
def test_every_row_of_a_list_is_on_one_of_its_pages(
    dashboard: DashboardScene, path: str, make: Callable[[DashboardScene], None], first: str, older: str
) -> None:
    """Older pages keep the filter and stay as they are; only the first one follows what happens."""
    # given
    page = dashboard.page(path)
    make(dashboard)
    wait_for(lambda: len(walk(page, dashboard.address + path)) >= 3, "three pages", 60)
    # when
    shown = walk(page, dashboard.address + path)
    # then
    assert [len(each) for each in shown[:2]] == [100, 100]
    everything = [row for each in shown for row in each]
    assert len(set(everything)) == len(everything) >= ROWS
    # when
    page.goto(dashboard.address + path)
    expect(page.locator("main [data-fragment]")).to_have_count(1)
    expect(page.get_by_role("link", name=first, exact=True)).to_have_count(0)
    page.get_by_role("link", name=older, exact=True).click()
    # then
    expect(page.get_by_role("link", name=first, exact=True)).to_be_visible()
    expect(page.locator("main [data-fragment]")).to_have_count(0)
    # when
    page.get_by_role("link", name=first, exact=True).click()
    # then
    expect(page.locator("main [data-fragment]")).to_have_count(1)
    assert page.url == dashboard.address + path
    nonsense = f"{dashboard.address}{path.partition('?')[0]}?behind=nonsense"
    assert page.request.get(nonsense).status == 404


def test_dead_letters_of_one_reason_are_decided_together(dashboard: DashboardScene) -> None:
    """After a page that says how many: exactly those, and not one that has come meanwhile; each is recorded."""
    # given
    event = encode("CustomerEvent", dashboard.store("dallas").create())
    page = dashboard.page("/dead-letters")
    reason, listed = page.locator("#reason-malformed"), page.locator("tr[id^=letter-]")
    before = len(dashboard.actions())
    # when
    for _ in range(3):
        dashboard.write("async-customers", b"several", event + b"?")
    dashboard.write("async-customers", b"other", b"another reason")
    # then
    expect(reason.locator("[data-label='Dead letters']")).to_have_text("3")
    expect(page.locator("#reason-no_avro")).to_be_visible()
    # when
    reason.get_by_role("link", name="malformed").click()
    # then
    expect(listed).to_have_count(3)
    # when
    reason.get_by_role("link", name="Discard…").click()
    # then
    expect(page.get_by_role("heading")).to_have_text("Discard 3 dead letters?")
    # when
    overview = dashboard.page("/dead-letters?reason=malformed")
    dashboard.write("async-customers", b"several", event + b"!")
    expect(overview.locator("tr[id^=letter-]")).to_have_count(4)
    page.get_by_role("button", name="Discard all 3").click()
    # then
    expect(reason.locator("[data-label='Dead letters']")).to_have_text("1")
    # when
    reason.get_by_role("link", name="Replay…").click()
    page.get_by_role("button", name="Replay it").click()
    # then
    expect(overview.locator("tr[id^=letter-] [data-label=Attempt]")).to_have_text("2")
    done = [action["action"] for action in dashboard.actions()[before:]]
    assert done == ["discard_dead_letter"] * 3 + ["replay_dead_letter"]


def walk(page: Page, address: str) -> list[list[str]]:
    """The rows of each page of the list, by following the links from the first one; each row by its id or its text."""
    pages = []
    following: str | None = address
    while following is not None:
        text = page.request.get(following).text()
        body = text.rpartition("<tbody>")[2].partition("</tbody>")[0]
        pages.append([found[0] for row in body.split("<tr")[1:] if (found := _ROW.search(row)) is not None])
        link = re.search('rel="next" href="([^"]+)"', text)
        following = None if link is None else urljoin(address, unescape(link[1]))
    return pages
