"""Every page of the screen: readable for everybody, on a small and on a large screen, in light and in dark."""

import secrets
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tests.browser.conftest import SCHEMES, NewContext, Scheme, Shop, register, sign_in, take_pictures

_GRAVE: Final = ("serious", "critical")


@pytest.fixture
def pages(shop: Shop, clerk: Page) -> dict[str, str]:
    """The addresses of all pages by name, in a store with something to see on each."""
    address = register(
        shop,
        clerk,
        first_name="Katherine",
        last_name="Johnson",
        known_as="Kate",
        email="katherine@example.com",
        phone="713 555 0142",
        customer_group="20",
    )
    clerk.get_by_role("link", name="Add address").click()
    for label, text in (("Street", "12 Orbit Road"), ("Postal code", "77002"), ("City", "Houston")):
        clerk.get_by_label(label).fill(text)
    clerk.get_by_role("button", name="Save").click()
    expect(clerk.get_by_role("status").filter(has_text="The change is saved.")).to_be_visible()
    clerk.get_by_label("Card number").fill(f"LC-{secrets.randbelow(10**8):08}")
    clerk.get_by_role("button", name="card").click()
    expect(clerk.get_by_role("status").filter(has_text="The card is")).to_be_visible()
    clerk.get_by_role("link", name="New sale").click()
    for row, (sku, price) in enumerate((("TEA", "4.50"), ("TEAPOT", "32"))):
        clerk.get_by_label("Article").nth(row).fill(sku)
        clerk.get_by_label("Price (USD)").nth(row).fill(price)
    clerk.get_by_role("button", name="Record sale").click()
    expect(clerk.locator(".total")).to_be_visible()
    sale = clerk.url.partition("?")[0]
    clerk.goto(f"{shop.address}/day")
    clerk.get_by_role("button", name="Close the day").click()
    expect(clerk.get_by_text("Posted").first).to_be_visible()
    clerk.goto(address)
    contact = clerk.get_by_role("link", name="Change katherine@example.com").get_attribute("href")
    place = clerk.get_by_role("link", name="Change 12 Orbit Road").get_attribute("href")
    customer = address.removeprefix(shop.address)
    return {
        "customers": "/",
        "search": "/?q=john",
        "nobody": "/?q=zyzzyva",
        "customer-new": "/customers/new",
        "customer": customer,
        "customer-edit": f"{customer}/edit",
        "discard": f"{customer}/discard",
        "remove": f"{place}/remove",
        "address": str(place),
        "contact": str(contact),
        "attention": "/attention",
        "sales": "/sales",
        "no-sales": "/sales?day=2020-01-01",
        "sale": sale.removeprefix(shop.address),
        "sale-new": f"/sales/new?kind=sale&customer={customer.rpartition('/')[2]}",
        "order-new": "/sales/new?kind=order",
        "day": "/day",
        "clerk": "/clerk",
        "not-here": "/customers/nobody",
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_is_accessible_and_fits(
    shop: Shop, pages: dict[str, str], new_context: NewContext, scheme: Scheme
) -> None:
    """No serious or critical violation of axe-core, and no horizontal scrolling at 390 pixels. Pictures are kept."""
    # given
    page = new_context(color_scheme=scheme, viewport={"width": 1024, "height": 768}).new_page()
    wrong: list[str] = []
    # when
    page.goto(f"{shop.address}/login")
    wrong += _look(page, "login", scheme)
    sign_in(shop, page, "Ana")
    for name, path in pages.items():
        page.goto(shop.address + path)
        wrong += _look(page, name, scheme)
    page.goto(f"{shop.address}/customers/new")
    page.get_by_label("Phone").fill("12")
    page.get_by_role("button", name="Save customer").click()
    expect(page.get_by_role("alert")).to_be_visible()
    wrong += _look(page, "customer-errors", scheme)
    # then
    assert not wrong


def _look(page: Page, name: str, scheme: Scheme) -> list[str]:
    """Take pictures of the page; return what is wrong with it."""
    wrong = [
        f"{name}: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in _GRAVE
    ]
    page.set_viewport_size({"width": 390, "height": 768})
    too_wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.set_viewport_size({"width": 1024, "height": 768})
    take_pictures(page, f"store-{name}", scheme)
    return [*wrong, f"{name}: {too_wide} pixels too wide"] if too_wide > 0 else wrong
