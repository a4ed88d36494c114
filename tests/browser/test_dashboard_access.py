"""Who may see and do what at the dashboard: viewers, operators, and strangers."""

import pytest
from playwright.sync_api import expect

from tests.browser.dashboard_scene import PAGES, DashboardScene, search

pytestmark = pytest.mark.usefixtures("nothing_leaves_the_machine")


def test_viewer_sees_no_personal_data_and_cannot_act(dashboard: DashboardScene) -> None:
    """No page has a button or a name for a viewer, and a form that a viewer sends all the same is refused."""
    # given
    event = dashboard.store("houston").create(first_name="Secretive", last_name="Person")
    dashboard.scene.ask(event)
    held = dashboard.store("lemuria").create()
    dashboard.scene.ask(held)
    customer = f"/customers/{event['customer_id']}"
    dashboard.write("async-customers", b"nobody", b"Secretive")
    page = dashboard.page("/dead-letters", role="viewer")
    letter = page.locator("tr[id^=letter-]", has_text="not Avro").locator("a").first.get_attribute("href") or ""
    # then
    for path in (*PAGES, customer, letter):
        page.goto(dashboard.address + path)
        text = page.locator("body").inner_text()
        assert "Secretive" not in text, path
        assert "Person" not in text, path
        buttons = page.locator("main button").all_inner_texts()
        assert set(buttons) <= {"Search", "Show"}, path
        assert page.locator("a[href*='/reject'], a[href*='/discard']").count() == 0
    # when
    page.goto(f"{dashboard.address}/customers")
    search(page, "Secretive")
    # then
    expect(page.get_by_text("No customer of headquarters matches.")).to_be_visible()
    # when
    search(page, event["customer_id"])
    # then
    expect(page.locator("tbody [data-label=Name]")).to_have_text("hidden")
    # when
    key = page.locator("[name=form_key]").input_value()
    refused = {
        path: page.request.post(dashboard.address + path, form={"form_key": key, "reason": "because"}).status
        for path in (
            f"{customer}/personal-data",
            f"/changes/held/{held['event_id']}/reject",
            "/channels/houston/suspend",
            f"{letter}/discard",
            f"{letter}/replay",
            f"{letter}/content",
        )
    }
    # then
    assert set(refused.values()) == {403}
    assert page.request.get(f"{dashboard.address}/changes/held/{held['event_id']}/reject").status == 403
    assert not dashboard.scene.query("SELECT 1 FROM operator_actions WHERE operator = 'Vint Cerf'")
    assert not dashboard.scene.query("SELECT 1 FROM channels WHERE suspended_at IS NOT NULL")


def test_only_forms_of_the_own_session_and_valid_tokens_are_accepted(dashboard: DashboardScene) -> None:
    """Without session pages lead to the form; wrong tokens, foreign forms and forged headers of a proxy are refused."""
    # given
    operator = dashboard.page("/channels/houston")
    other = dashboard.context("operator").new_page()
    other.goto(f"{dashboard.address}/channels/houston")
    foreign = other.locator("[name=form_key]").first.input_value()
    suspend = f"{dashboard.address}/channels/houston/suspend"
    with dashboard.client() as client:
        # when
        answers = {path: client.get(path).status_code for path in (*PAGES, "/events")}
        fragment = client.get("/part/changes", headers={"X-Fragment": "1"})
        wrong = client.post("/login", data={"token": "x" * 43, "name": "Eve"})
        nameless = client.post("/login", data={"token": dashboard.token("operator"), "name": " "})
        document = client.get("/api/overview", headers={"Authorization": "Bearer wrong"})
        browser = {"Accept": "text/html", "X-User": "somebody"}
        nowhere, posted = client.get("/nowhere", headers=browser), client.post("/checks", headers=browser)
        program = client.get("/nowhere")
        twice = client.get("/", headers=[("X-User", "proxied"), ("X-User", "eve")])
        proxied = client.get("/channels/houston", headers={"X-User": "proxied", "X-Forwarded-For": "203.0.113.9"})
        reader = client.get("/channels/houston", headers={"X-User": "somebody"})
        unproven = client.post("/channels/houston/suspend", data={"reason": "x"}, headers={"X-User": "proxied"})
    # then
    assert set(answers.values()) == {303}
    assert (fragment.status_code, wrong.status_code, nameless.status_code) == (401, 401, 422)
    assert (document.status_code, twice.status_code, unproven.status_code) == (401, 403, 403)
    assert "This token is not accepted." in wrong.text
    assert (nowhere.status_code, posted.status_code, posted.headers["Allow"]) == (404, 405, "GET")
    assert "<title>Not found - Headquarters - tenten</title>" in nowhere.text
    assert "Back to the overview" in posted.text
    assert program.headers["Content-Type"] == "application/problem+json"
    assert ("Suspend</button>" in proxied.text, "Suspend</button>" in reader.text) == (True, False)
    # when
    for asked, shown in (("/changes?tab=held", "/changes?tab=held"), ("//example.com/", "/")):
        other.context.clear_cookies()
        other.goto(f"{dashboard.address}{asked}" if asked == shown else f"{dashboard.address}/login?next={asked}")
        other.get_by_label("Your name").fill("Grace")
        other.get_by_label("Access token").fill(dashboard.token("operator"))
        other.get_by_role("button", name="Sign in").click()
        # then
        other.wait_for_url(f"{dashboard.address}{shown}")
    expect(other).to_have_title("Overview - Headquarters - tenten")
    # when
    for key in ("", "wrong", foreign):
        # then
        assert operator.request.post(suspend, form={"form_key": key, "reason": "because"}).status == 403
    assert not dashboard.scene.query("SELECT 1 FROM channels WHERE suspended_at IS NOT NULL")
    other.context.close()
