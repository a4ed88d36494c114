"""The dashboard and single stores: one that loads its customers, and one that falls silent.

This file is the last one of the dashboard, so that the silence passes beside the tests of the others.
"""

import re

import pytest
from playwright.sync_api import Page, expect

from tenten.sql.engine import open_database
from tenten.sql.locks import apply_lock
from tests.browser.conftest import take_pictures
from tests.browser.dashboard_scene import DashboardScene
from tests.signed import Keys

pytestmark = pytest.mark.usefixtures("nothing_leaves_the_machine")


def test_store_that_resyncs_shows_how_far_it_is(dashboard: DashboardScene) -> None:
    """The page follows the store's heartbeats: a bar while a real resync is under way, and none when it has ended."""
    # given
    dashboard.scene.ask(dashboard.store("houston").create())
    page = dashboard.page("/checks")
    row = page.locator("#load-houston")
    expect(row.get_by_role("progressbar")).to_have_count(0)
    engine = open_database(dashboard.scene.settings.channel("houston").database)
    # when
    with dashboard.process("channel", "resync", "houston") as (resync, log):
        with apply_lock(engine):
            # then
            bar = row.get_by_role("progressbar", name="Resync")
            expect(bar).to_be_visible()
            expect(row).to_contain_text(re.compile(r"Resync: \d+ of \d+, since"))
            take_pictures(page, "dashboard-checks-loading")
        # when
        assert resync.wait(60) == 0, log.read_text()
        # then
        expect(row.get_by_role("progressbar")).to_have_count(0)
    engine.dispose()


def test_store_falls_silent_and_a_forged_heartbeat_does_not_hide_it(dashboard: DashboardScene, watcher: Page) -> None:
    """Munich was heard from once, when the first test of the dashboard began: after 90 s its row turns red without a
    reload.
    """
    # then
    row = watcher.locator("#store-munich")
    expect(row).to_have_class("bad", timeout=100_000)
    expect(row.locator(".status")).to_have_text("silent")
    expect(row).to_contain_text("munich has not been heard from for")
    # when
    Keys(url=dashboard.scene.url).join("munich")
    dashboard.beat("munich")
    # then
    expect(row).to_contain_text("a heartbeat in the name of munich was refused")
    expect(row.locator(".status")).to_have_text("silent")
    assert watcher.evaluate("window.isTheSamePage")
    watcher.context.close()
