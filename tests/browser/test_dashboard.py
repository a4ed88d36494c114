"""Headquarters' dashboard in a browser, with real events: each page shows what has just happened, and acts on it."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tenten.producers import create_customer, edit_customer, open_channel
from tenten.rules.reference import reference
from tests.acceptance.cli import ROOT
from tests.browser.dashboard_scene import OPERATOR, PAGES, DashboardScene, search
from tests.faults.avro import encode
from tests.waiting import wait_for

DARK_PAGES: Final = ("/", "/changes", "/channels/houston")
"""Those that have every colour."""

pytestmark = pytest.mark.usefixtures("nothing_leaves_the_machine")

PICTURES: Final = Path(os.environ.get("TENTEN_PICTURES", ROOT / "build" / "pictures"))


def test_store_that_cannot_send_turns_red_with_its_remedy_and_green_again(dashboard: DashboardScene) -> None:
    """The overview follows heartbeats: the worst store comes first, and the document for programs says the same."""
    # given
    page = dashboard.page()
    row = page.locator("#store-dallas")
    expect(row.locator(".status")).to_have_text("never heard")
    expect(row).not_to_be_visible()
    expect(page.locator("#unheard summary")).to_contain_text("never been heard from")
    expect(page.locator("#unheard")).to_contain_text("tenten channel run NAME")
    page.locator("#unheard summary").click()
    expect(row).to_be_visible()
    # when
    dashboard.beat("houston")
    dashboard.beat("dallas")
    # then
    expect(row).to_have_class("good")
    expect(row.locator("[data-label=Customers]")).to_have_text("41")
    # when
    spiteful = {"code": "odd", "text": "<img src=x onerror=alert(1)> `<b>odd</b>`"}
    dashboard.beat("dallas", unsent_for=timedelta(minutes=20), problems=[spiteful])
    # then
    expect(row).to_have_class("bad")
    expect(row.locator(".status")).to_have_text("not sending")
    expect(row).to_contain_text("dallas has a change that has not been sent for 20 minutes")
    expect(row).to_contain_text("<img src=x onerror=alert(1)> <b>odd</b>")
    expect(row.locator("[data-label=Unsent]")).to_contain_text("7 20 min")
    expect(page.locator(".stores tbody").first).to_have_class("bad")
    # when
    with dashboard.client(headers={"Authorization": f"Bearer {dashboard.token('viewer')}"}) as client:
        document = client.get("/api/overview").json()
    # then
    states = {store["channel_id"]: (store["state"], store["unsent"]) for store in document["stores"]}
    assert states["dallas"] == ("bad", 7)
    assert document["workers"] == {"headquarters": 1, "transactions": 1}
    # when
    page.get_by_label("Store or legal entity").fill("DALL")
    page.get_by_role("button", name="Show").click()
    # then
    expect(row).to_be_visible()
    expect(page.locator(".stores tbody")).to_have_count(1)
    # when
    dashboard.beat("dallas")
    # then
    expect(row).to_have_class("good")


def test_customer_is_found_and_shown_only_on_request_which_is_recorded(dashboard: DashboardScene) -> None:
    """History, places and changes are shown; name, phone and e-mail only after a click, which is recorded."""
    # given
    with open_channel(dashboard.scene.settings, "houston", operator="clerk 7") as houston:
        ada = create_customer(houston, first_name="Ada", last_name="Müller", email="ada.m@example.com")
        wait_for(
            lambda: bool(dashboard.scene.query("SELECT 1 FROM customers WHERE customer_id = %s", ada.customer_id)),
            "the customer at headquarters",
        )
        edit_customer(houston, ada.customer_id, last_name="Lovelace-Müller")
    wait_for(
        lambda: bool(dashboard.scene.query("SELECT 1 FROM customer_audit WHERE customer_id = %s", ada.customer_id)),
        "the edit at headquarters",
    )
    page = dashboard.page("/customers")
    # when
    search(page, "lovelace-muller")
    # then
    expect(page.locator("tbody")).to_contain_text("A••• L•••")
    assert "search_customers" in {action["action"] for action in dashboard.actions()}
    # when
    search(page, "ADA.M@example.com".lower())
    page.get_by_role("link", name=re.compile("^C-")).click()
    # then
    expect(page.locator("#main")).not_to_contain_text("Lovelace")
    expect(page.locator("#main")).not_to_contain_text("example.com")
    expect(page.locator("section[aria-labelledby=events]")).to_contain_text("clerk 7")
    expect(page.locator("section[aria-labelledby=audit]")).to_contain_text("last_name")
    expect(page.locator(".way")).to_contain_text("munich")
    expect(page.locator(".way li", has_text="munich")).to_contain_text("does not receive it")
    assert ada.customer_id not in {action["subject"] for action in dashboard.actions()}
    # when
    page.get_by_role("button", name="Show personal data").click()
    # then
    expect(page.locator("dl")).to_contain_text("Lovelace-Müller")
    expect(page.locator("dl")).to_contain_text("ada.m@example.com")
    expect(page.locator("section[aria-labelledby=audit]")).to_contain_text("Lovelace-Müller")
    [look] = [action for action in dashboard.actions() if action["subject"] == ada.customer_id]
    assert (look["operator"], look["action"], look["outcome"]) == (OPERATOR, "show_personal_data", "done")
    # when
    for role in ("operator", "viewer"):
        other = dashboard.page("/customers", role=role)
        search(other, reference(ada.customer_id).lower().replace("-", " "))
        # then
        expect(other.locator("tbody a")).to_have_attribute("href", f"/customers/{ada.customer_id}")
    # when
    dashboard.beat("dallas")
    # then: it was complete after that version was written
    wait_for(lambda: has_arrived(page, "dallas"), "dallas to have the version")


def test_figures_of_the_overview_follow_what_happens(dashboard: DashboardScene) -> None:
    """Account numbers left, waiting sales, running workers, rejected changes, the last verification, and the times."""
    # given
    page, checks, orders = dashboard.page(), dashboard.page("/checks"), dashboard.page("/transactions?tab=orders")
    left = page.locator("#tile-numbers li", has_text="usrt").locator("b")
    before = int(left.inner_text().replace(",", ""))
    rejected = int(page.locator("#tile-rejected .figure").inner_text())
    waiting = dashboard.till("dallas").order(customer_id=dashboard.store("dallas").guid())
    # when
    with open_channel(dashboard.scene.settings, "houston") as houston:
        create_customer(houston, first_name="Tim", last_name="Lee")
    dashboard.sell(waiting)
    dashboard.scene.send(dashboard.store("dallas").create(last_name="y" * 200))
    # then
    expect(left).to_have_text(f"{before - 1:,}")
    expect(page.locator("#tile-rejected .figure")).to_have_text(f"{rejected + 1}")
    expect(page.locator("#tile-waiting .figure")).to_have_text("1")
    expect(orders.locator("tr", has_text=waiting["transaction_id"][:8])).to_contain_text("unknown customer")
    # when
    with dashboard.process("headquarters", "verify") as (verify, log):
        assert verify.wait(60) == 0, log.read_text()
    # then
    expect(checks.locator("section[aria-labelledby=verified] tbody tr").first).to_contain_text("they agree")
    # when
    workers = page.locator("#tile-workers li", has_text="transactions").locator("b")
    expect(workers).to_have_text("1")
    with dashboard.process("transactions", "run"):
        # then
        expect(workers).to_have_text("2")
    expect(workers).to_have_text("1")
    expect(page.locator("#tile-times .figure")).to_contain_text("p99")
    expect(page.locator("#tile-times path.p50")).to_have_attribute("d", re.compile("^M"))


def test_held_change_appears_and_is_rejected_with_a_reason(dashboard: DashboardScene) -> None:
    """A change of an unknown channel is held, without reloading the page; rejected, it is gone and listed so."""
    # given
    page = dashboard.page("/changes?tab=held")
    overview = dashboard.page()
    event = dashboard.store("atlantis").create()
    # when
    dashboard.scene.send(event)
    # then
    row = page.locator(f"#held-{event['event_id']}")
    expect(row).to_contain_text("unknown channel")
    expect(row).to_contain_text("atlantis")
    expect(overview.locator("#tile-held .figure")).to_have_text("1")
    expect(page.locator(".lead")).to_contain_text("1 change is held: headquarters does not have the channel atlantis")
    # when
    row.get_by_role("link", name="Reject…").click()
    page.get_by_label("Reason, which the clerk in the store reads").fill("There is no such store")
    page.get_by_role("button", name="Reject the change").click()
    # then
    expect(page.get_by_role("heading", name="Held by headquarters")).to_be_visible()
    expect(row).to_have_count(0)
    expect(overview.locator("#tile-held .figure")).to_have_text("0")
    [done] = [action for action in dashboard.actions() if action["subject"] == event["event_id"]]
    assert (done["action"], done["reason"], done["outcome"]) == ("reject_held", "There is no such store", "done")
    # when
    page.goto(f"{dashboard.address}/changes?channel=atlantis")
    # then
    rejected = page.locator(f"#rejected-{event['event_id']}")
    expect(rejected).to_contain_text("There is no such store")
    # when
    page.locator("select#code").select_option("rejected_by_headquarters")
    page.get_by_role("button", name="Show").click()
    # then
    expect(rejected).to_have_count(1)


def test_blocked_statement_names_the_customer_of_each_reason(dashboard: DashboardScene) -> None:
    """An end of day with a sale to a rejected customer and one that never arrived is blocked, and says so at once."""
    # given
    page, overview = dashboard.page("/transactions?status=blocked"), dashboard.page()
    blocked_before = overview.locator("#tile-statements .note")
    expect(blocked_before).to_have_text("none blocked")
    till, store = dashboard.till("dallas"), dashboard.store("dallas")
    rejected = store.create(first_name="x" * 200)
    bad, missing = till.sale(event=rejected), till.sale()
    day = till.end_of_day([bad, missing])
    # when
    dashboard.sell(bad, day)
    # then
    row = page.locator(f"#statement-{day['transaction_id']}")
    expect(row).to_contain_text("Listed by the store but not received by headquarters.")
    expect(row.get_by_role("link", name=rejected["customer_id"][:8])).to_have_attribute(
        "href", f"/customers/{rejected['customer_id']}"
    )
    expect(overview.locator("#tile-statements")).to_contain_text("1 blocked")
    # when: it has been blocked for longer than `blocked_seconds_max`
    long_ago = (
        "UPDATE statements SET received_at = received_at - interval '2 hours' WHERE statement_id = %s RETURNING 1"
    )
    dashboard.scene.query(long_ago, day["transaction_id"])
    # then
    expect(overview.locator("#store-dallas .status")).to_have_text("blocked statement")
    expect(overview.locator("#store-dallas")).to_contain_text("shows what has to be corrected")
    # when
    row.get_by_role("link", name="2026-").click()
    page.get_by_role("link", name=f"Sale {bad['transaction_id'][:8]}").click()
    # then
    expect(page.locator("h1")).to_contain_text("blocked")
    expect(page.locator(".reason")).to_contain_text("first_name")


def test_dead_letter_is_shown_replayed_and_discarded_on_the_second_click(dashboard: DashboardScene) -> None:
    """Its bytes are hidden until asked for; replayed, it becomes another one; discarding takes a confirmation."""
    # given
    page, overview = dashboard.page("/dead-letters"), dashboard.page()
    event = dashboard.store("dallas").create(first_name="Hidden")
    spoilt = encode("CustomerEvent", event) + b"?"
    # when
    dashboard.write("async-customers", event["customer_id"].encode(), spoilt)
    # then
    opened = page.locator("tr[id^=letter-]")
    expect(opened).to_contain_text("has 1 bytes after its end")
    expect(overview.locator("#tile-letters .figure")).to_have_text("1")
    # when
    first = opened.get_by_role("link").inner_text()
    opened.get_by_role("link").click()
    # then
    expect(page.locator("pre")).to_have_count(0)
    # when
    page.get_by_role("button", name="Show content").click()
    # then
    expect(page.locator("pre.dump")).to_contain_text("Hidden")
    # when
    page.get_by_role("button", name="Replay").click()
    # then: it is read again, with the same result
    expect(opened).to_have_count(1)
    expect(opened.locator("[data-label=Attempt]")).to_have_text("2")
    assert opened.get_by_role("link").inner_text() != first
    # when
    opened.get_by_role("link").click()
    page.get_by_role("link", name="Discard…").click()
    # then
    expect(page.get_by_role("heading")).to_contain_text("Discard dead letter")
    assert not dashboard.scene.query("SELECT 1 FROM dead_letter_decisions WHERE decision = 'discarded'")
    # when
    page.get_by_role("button", name="Discard it").click()
    # then
    expect(page.get_by_text("None is open")).to_be_visible()
    expect(overview.locator("#tile-letters .figure")).to_have_text("0")
    actions = [action["action"] for action in dashboard.actions() if "dead_letter" in action["action"]]
    assert actions == ["show_dead_letter", "replay_dead_letter", "discard_dead_letter"]


def test_channel_is_suspended_and_resumed(dashboard: DashboardScene) -> None:
    """With a reason, which the overview shows; the history of settings and the record of actions name the operator."""
    # given
    page, overview = dashboard.page("/channels/munich"), dashboard.page()
    # when
    page.get_by_label("Reason").fill("till 3 was stolen")
    page.get_by_role("button", name="Suspend").click()
    # then
    expect(page.locator("h1 .status")).to_have_text("suspended")
    expect(overview.locator("#store-munich .status")).to_have_text("suspended")
    dashboard.beat("munich", unsent_for=timedelta(minutes=20))
    expect(overview.locator("#store-munich [data-label=Unsent]")).to_contain_text("7 20 min")
    expect(overview.locator("#store-munich .status")).to_have_text("suspended")
    expect(overview.locator("#store-munich")).to_contain_text("till 3 was stolen")
    # when
    page.get_by_role("button", name="Resume").click()
    # then
    expect(page.get_by_text("Headquarters accepts its records.")).to_be_visible()
    expect(overview.locator("#store-munich")).not_to_contain_text("till 3 was stolen")
    page.goto(f"{dashboard.address}/channels")
    expect(page.locator("section[aria-labelledby=history]")).to_contain_text(OPERATOR)
    page.goto(f"{dashboard.address}/actions")
    expect(page.locator("tbody")).to_contain_text("Suspended a channel")
    done = [action["action"] for action in dashboard.actions() if action["subject"] == "munich"]
    assert done == ["suspend_channel", "resume_channel"]


def test_pages_are_accessible_fit_a_telephone_and_work_without_script(dashboard: DashboardScene) -> None:
    """No serious violation that axe finds, light or dark; nothing is wider than 390 pixels; forms work unscripted."""
    # given
    event = dashboard.store("houston").create()
    dashboard.scene.ask(event, dashboard.store("mu").create())
    pages = (*PAGES, f"/customers/{event['customer_id']}")
    # then
    for scheme, width, shown in (("light", 390, pages), ("dark", 1024, DARK_PAGES)):
        context = dashboard.context("operator", color_scheme=scheme, viewport={"width": width, "height": 800})
        page = context.new_page()
        for path in shown:
            page.goto(dashboard.address + path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
            found = Axe().run(page).response["violations"]
            serious = [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")]
            assert serious == [], (path, scheme)
            name = path.strip("/").partition("?")[0].partition("/")[0] or "overview"
            page.screenshot(path=PICTURES / f"dashboard-{name}-{width}-{scheme}.png", full_page=True)
        context.close()
    # when
    unscripted = dashboard.context("operator", java_script_enabled=False).new_page()
    unscripted.goto(f"{dashboard.address}/customers")
    search(unscripted, event["customer_id"])
    unscripted.locator("tbody a").click()
    unscripted.get_by_role("button", name="Show personal data").click()
    # then
    expect(unscripted.locator("dl")).to_contain_text(event["customer"]["last_name"])
    unscripted.context.close()


def test_database_that_is_away_is_named_and_the_stores_are_still_shown(dashboard: DashboardScene) -> None:
    """While headquarters' database refuses connections the overview says so; afterwards it is as before."""
    # given
    page = dashboard.page()
    expect(page.locator("#tile-numbers")).to_contain_text("usrt")
    # when
    with dashboard.database_away():
        # then
        expect(page.locator("#problem-no_answer")).to_contain_text("PostgreSQL")
        expect(page.locator("#store-houston")).to_be_visible()
        with dashboard.client() as client:
            assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)
            assert 'process="dashboard"' in client.get("/metrics").text
    # then
    expect(page.locator("#problem-no_answer")).to_have_count(0)
    expect(page.locator("#tile-numbers")).to_contain_text("usrt")


def has_arrived(page: Page, channel: str) -> bool:
    """Whether a channel is shown to have the customer's version."""
    page.goto(page.url.replace("/personal-data", ""))
    return re.search("ha(s|ve) version", page.locator(".way li", has_text=channel).last.inner_text()) is not None
