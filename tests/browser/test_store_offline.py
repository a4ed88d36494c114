"""The screen of a store that is cut off, and connected again."""

import re
from dataclasses import dataclass

from playwright.sync_api import Page, expect

from tests.browser.conftest import Shop, register, take_pictures

NUMBER = re.compile(r"C-\d{8}")


@dataclass(frozen=True, slots=True)
class Registered:
    """A customer's page, in a tab that stays open."""

    page: Page
    address: str


def test_a_store_works_offline_and_catches_up_by_itself(shop: Shop, clerk: Page) -> None:
    """While the broker is away a banner counts what is safe in the store. Then the open page shows the number without
    being loaded again; what headquarters rejects is corrected, which frees the order that waits for it.
    """
    # given
    wait = expect(clerk.get_by_role("status").filter(has_text="Offline"))
    wait.to_have_count(0)
    shop.stop_broker()
    narrower = shop.tenten.directory / "narrower.toml"
    narrower.write_text(shop.settings('["20"]'))
    # when
    ada = Registered(clerk, register(shop, clerk, first_name="Ada", last_name="Lovelace"))
    expect(clerk.get_by_text("Pending sync").first).to_be_visible()
    reference = clerk.locator("h1 + p .code").inner_text()
    shop.tenten.ok("settings", "apply", str(narrower))
    other = clerk.context.new_page()
    bea = Registered(other, register(shop, other, first_name="Bea", last_name="Offline", customer_group="10"))
    _record_order(other)
    # then
    banner = clerk.locator(".banner", has_text="Offline since")
    expect(banner).to_contain_text("3 changes are safe here and will be sent automatically")
    clerk.reload()
    expect(banner).to_be_visible()
    expect(clerk.get_by_role("heading", name="Ada Lovelace")).to_be_visible()
    take_pictures(clerk, "store-offline")
    # when
    clerk.evaluate("window.notLoadedAgain = true")
    shop.start_broker()
    # then
    expect(clerk.locator("h1 + p")).to_contain_text(NUMBER)
    expect(banner).to_have_count(0)
    expect(clerk.get_by_role("button", name="Issue card")).to_be_visible()
    assert clerk.evaluate("window.notLoadedAgain")
    assert clerk.url.partition("?")[0] == ada.address
    _is_corrected(shop, other, bea)
    _is_found_by(shop, clerk, reference)


def test_open_page_says_while_headquarters_has_suspended_the_store(shop: Shop, clerk: Page) -> None:
    """A banner appears by itself, and what is registered meanwhile stays in the store; both end with the suspension."""
    # given
    banner = clerk.locator(".banner.bad", has_text="Headquarters does not accept changes of this store")
    expect(banner).to_have_count(0)
    clerk.evaluate("window.notLoadedAgain = true")
    # when
    shop.tenten.ok("channel", "suspend", "houston", "--why", "till 3 was stolen")
    # then
    expect(banner).to_be_visible()
    assert clerk.evaluate("window.notLoadedAgain")
    # when
    register(shop, clerk, first_name="Vera", last_name="Rubin")
    # then
    expect(banner).to_be_visible()
    expect(clerk.locator("h1 + p")).to_contain_text("Pending sync")
    take_pictures(clerk, "store-suspended")
    # when
    clerk.evaluate("window.notLoadedAgain = true")
    shop.tenten.ok("channel", "resume", "houston")
    # then
    expect(banner).to_have_count(0)
    expect(clerk.locator("h1 + p")).to_contain_text(NUMBER)
    assert clerk.evaluate("window.notLoadedAgain")


def _record_order(page: Page) -> None:
    """From the customer's page."""
    page.get_by_role("link", name="New order").click()
    page.get_by_label("Article").first.fill("TEA")
    page.get_by_label("Price (USD)").first.fill("4.50")
    page.get_by_role("button", name="Record order").click()
    expect(page.locator("h1 + p")).to_have_text("Being sent")


def _is_corrected(shop: Shop, page: Page, bea: Registered) -> None:
    """The open page of the order shows what it waits for; the customer is in the list of what to correct."""
    expect(page.locator("h1 + p")).to_have_text(re.compile("Waits for its customer|Customer to correct"))
    expect(page.get_by_role("link", name="To correct").locator(".badge")).to_be_visible()
    order = page.url
    page.goto(f"{shop.address}/attention")
    expect(page.get_by_text("Allowed: 20.").first).to_be_visible()
    take_pictures(page, "store-rejected")
    expect(page.get_by_role("link", name="To correct").locator(".badge")).to_have_text("1")
    page.get_by_role("link", name="Discard the change Bea Offline").click()
    expect(page.get_by_text("An order or a sale may need this change")).to_be_visible()
    expect(page.get_by_role("button", name="Discard")).to_have_count(0)
    page.get_by_role("link", name="Correct", exact=True).click()
    expect(page.get_by_label("Customer group")).to_be_focused()
    expect(page.locator("#f-customer_group-error")).to_have_text("Allowed: 20.")
    page.get_by_label("Customer group").select_option("20")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="The change is saved.")).to_be_visible()
    assert page.url == bea.address
    expect(page.locator("h1 + p")).to_contain_text(NUMBER)
    page.goto(order)
    expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile(r"SO-\d+"))
    expect(page.locator("h1 + p")).to_have_text("Accepted")
    page.goto(f"{shop.address}/attention")
    expect(page.get_by_text("Nothing to correct")).to_be_visible()


def _is_found_by(shop: Shop, page: Page, reference: str) -> None:
    """As one types, and before the form is sent."""
    page.goto(shop.address)
    page.get_by_label("Search customers").press_sequentially(reference.lower())
    expect(page.locator("#results").get_by_role("link", name="Ada Lovelace")).to_be_visible()
