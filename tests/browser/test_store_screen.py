"""What a clerk does on the screen of a store that is connected."""

import re

import httpx
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewContext, Shop, register, sign_in

NUMBER = re.compile(r"C-\d{8}")


def test_the_token_is_asked_for_and_checked(shop: Shop, new_context: NewContext) -> None:
    """No page without a session, no session with a wrong token, and none after signing out; a sign-in leads to the page
    that was asked for.
    """
    # given
    page = new_context().new_page()
    # when
    page.goto(f"{shop.address}/sales")
    page.get_by_label("Access token").fill("wrong-token-wrong-token")
    page.get_by_role("button", name="Sign in").click()
    # then
    expect(page.get_by_role("alert")).to_have_text("This token is not accepted.")
    # when
    page.get_by_label("Access token").fill(shop.token)
    page.get_by_role("button", name="Sign in").click()
    # then
    expect(page.get_by_role("heading", name="Orders and sales")).to_be_visible()
    assert page.url == f"{shop.address}/sales"
    # when
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{shop.address}/sales")
    # then
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_what_is_searched_for_is_in_no_address(shop: Shop, clerk: Page) -> None:
    """It is personal data, and would be in the browser's history and a proxy's log; the way back still finds it, and a
    link to the page begins anew.
    """
    # given
    register(shop, clerk, first_name="Nora", last_name="Nowhere")
    clerk.goto(shop.address)
    # when
    clerk.get_by_label("Search customers").press_sequentially("nowhere")
    expect(clerk.get_by_role("heading", name="1 result")).to_be_visible()
    clerk.get_by_role("link", name="Nora Nowhere").click()
    expect(clerk.get_by_role("heading", name="Nora Nowhere")).to_be_visible()
    clerk.go_back()
    # then
    expect(clerk.get_by_label("Search customers")).to_have_value("nowhere")
    expect(clerk.get_by_role("link", name="Nora Nowhere")).to_be_visible()
    assert clerk.url == f"{shop.address}/"
    # when
    clerk.get_by_role("link", name="Customers", exact=True).click()
    expect(clerk.get_by_role("heading", name="Recently changed here")).to_be_visible()
    # then
    expect(clerk.get_by_label("Search customers")).to_have_value("")


def test_no_change_without_the_key_of_the_form(shop: Shop, clerk: Page) -> None:
    """Every address that takes a form refuses one without the key of this session, and one without a session. What was
    entered in a form of an earlier session is shown, so that it is not lost.
    """
    # given
    cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in clerk.context.cookies())
    address = register(shop, clerk, first_name="Key", last_name="Holder")
    paths = ("/edit", "/discard", "/cards", "/addresses/x", "/addresses/x/remove", "/contacts/x", "/contacts/x/remove")
    urls = [address + path for path in paths]
    urls += [f"{shop.address}{path}" for path in ("/customers", "/sales", "/day/close", "/clerk", "/sales/x/resend")]
    # when
    with httpx.Client(headers={"Accept": "text/html"}) as client:
        strangers = {client.post(url, data={"first_name": "Eve"}).headers.get("location") for url in urls}
        answers = [
            client.post(url, data={"first_name": "Eve", "form_key": "0" * 64}, headers={"Cookie": cookies})
            for url in urls
        ]
    # then
    assert strangers == {"/login"}
    assert {(answer.status_code, "<dd>Eve</dd>" in answer.text) for answer in answers} == {(403, True)}
    assert "script-src 'self'" in httpx.get(f"{shop.address}/login").headers["content-security-policy"]


def test_errors_are_beside_their_fields_and_nothing_is_lost(shop: Shop, clerk: Page) -> None:
    """A form with mistakes comes back as it was entered; a corrected one is saved once, however often it is sent, and
    the way back leads to the form.
    """
    # given
    clerk.goto(f"{shop.address}/customers/new")
    clerk.get_by_label("Last name").fill("  Õun ")
    clerk.get_by_label("Phone").fill("12")
    clerk.get_by_label("The customer agrees to receive marketing").check()
    clerk.get_by_label("Shoe size").fill("7")
    # when
    clerk.get_by_role("button", name="Save customer").click()
    # then
    expect(clerk.locator("#f-phone-error")).to_contain_text("phone number")
    expect(clerk.locator("#f-attributes-shoe_size-error")).to_contain_text("Must not be less than 15")
    expect(clerk.get_by_role("alert").get_by_role("link", name="Shoe size")).to_be_visible()
    expect(clerk.get_by_label("Last name")).to_have_value("  Õun ")
    expect(clerk.get_by_label("Phone")).to_have_value("12")
    expect(clerk.get_by_label("Phone")).to_be_focused()
    assert clerk.url == f"{shop.address}/customers/new"
    # when
    clerk.get_by_label("Phone").fill("713 555 0177")
    clerk.get_by_label("Shoe size").fill("43.5")
    form = clerk.locator("form.card").evaluate("form => Object.fromEntries(new FormData(form))")
    clerk.get_by_role("button", name="Save customer").dblclick()
    expect(clerk.get_by_role("heading", name="Õun")).to_be_visible()
    # then
    expect(clerk.locator("h1 + p")).to_contain_text(NUMBER)
    expect(clerk.get_by_text("Marketing: agreed")).to_be_visible()
    assert clerk.request.post(f"{shop.address}/customers", form=form).url.startswith(clerk.url)
    found = shop.tenten.ok("customer", "search", "houston", "oun", "--json").json
    assert [(each["last_name"], each["phone"]) for each in found] == [("Õun", "+17135550177")]
    # when
    clerk.go_back()
    # then
    expect(clerk.get_by_role("heading", name="New customer")).to_be_visible()


def test_two_clerks_edit_one_customer_and_no_edit_disappears(shop: Shop, clerk: Page, new_context: NewContext) -> None:
    """Different fields are merged; for the same field the second clerk is asked, and sees the other value."""
    # given
    address = register(shop, clerk, first_name="Grace", last_name="Hopper", phone="713 555 0111")
    ben = sign_in(shop, new_context().new_page(), "Ben")
    for page in (clerk, ben):
        page.goto(f"{address}/edit")
    # when
    clerk.get_by_label("Middle name").fill("Brewster")
    clerk.get_by_label("Phone").fill("713 555 0112")
    clerk.get_by_role("button", name="Save").click()
    expect(clerk.get_by_role("heading", name="Grace Brewster Hopper")).to_be_visible()
    ben.get_by_label("E-mail").first.fill("grace@example.com")
    ben.get_by_label("Phone").fill("713 555 0113")
    ben.get_by_role("button", name="Save").click()
    # then
    expect(ben.locator("#f-phone-error")).to_contain_text("Their value: +17135550112")
    expect(ben.get_by_label("Middle name")).to_have_value("Brewster")
    expect(ben.get_by_label("Phone")).to_have_value("713 555 0113")
    # when
    ben.get_by_role("button", name="Save").click()
    expect(ben.get_by_role("status").filter(has_text="The change is saved.")).to_be_visible()
    # then
    shown = shop.tenten.ok("customer", "show", "houston", address.rpartition("/")[2], "--json").json
    assert (shown["middle_name"], shown["phone"], shown["email"]) == ("Brewster", "+17135550113", "grace@example.com")
    expect(clerk.get_by_role("strong").filter(has_text="grace@example.com")).to_be_visible()


def test_addresses_contacts_cards_and_sales_of_a_customer(shop: Shop, clerk: Page) -> None:
    """Added, changed and removed; an order is delivered to an address; the day is closed."""
    # given
    address = register(shop, clerk, first_name="Joan", last_name="Clarke", email="joan@example.com")
    # when
    clerk.get_by_role("link", name="Change joan@example.com").click()
    clerk.get_by_label("The customer agrees to receive marketing here").check()
    clerk.get_by_role("button", name="Save").click()
    clerk.get_by_role("link", name="Add address").click()
    clerk.get_by_role("button", name="Save").click()
    expect(clerk.get_by_role("alert")).to_contain_text("Enter a street or a city.")
    clerk.get_by_label("Street").fill("7 Park Lane")
    clerk.get_by_label("City").fill("Houston")
    clerk.get_by_role("button", name="Save").click()
    clerk.get_by_role("link", name="Add phone").click()
    clerk.get_by_label("Phone").fill("713 555 0199")
    clerk.get_by_role("button", name="Save").click()
    _adds_no_phone_twice_and_asks_before_it_is_removed(clerk, address)
    clerk.get_by_label("Card number").fill("LC-7001")
    clerk.get_by_role("button", name="card").click()
    # then
    expect(clerk.get_by_text("Marketing: agreed")).to_be_visible()
    expect(clerk.get_by_text("LC-7001")).to_be_visible()
    expect(clerk.get_by_text("+17135550199")).to_have_count(0)
    # when
    clerk.get_by_role("link", name="New order").click()
    clerk.get_by_label("Article").first.fill("TIN")
    clerk.get_by_label("Price (USD)").first.fill("many")
    clerk.get_by_role("button", name="Record order").click()
    expect(clerk.locator("#f-lines-0-price-error")).to_have_text("This is not a number.")
    expect(clerk.get_by_role("alert")).to_contain_text("Line 1, Price: This is not a number.")
    clerk.get_by_label("Price (USD)").first.fill("1,234.50")
    clerk.get_by_label("Delivery address").select_option(index=1)
    clerk.get_by_role("button", name="Record order").click()
    # then
    expect(clerk.locator("h1 + p")).to_have_text("Accepted")
    expect(clerk.get_by_text("7 Park Lane")).to_be_visible()
    # when
    clerk.goto(f"{shop.address}/sales/new?kind=sale")
    clerk.get_by_label("Customer").fill("joan cl")
    clerk.get_by_label("Article").first.fill("TEA")
    clerk.get_by_label("Price (USD)").first.fill("4")
    clerk.get_by_role("button", name="Record sale").click()
    expect(clerk.get_by_text("Joan Clarke")).to_be_visible()
    clerk.goto(f"{shop.address}/day")
    clerk.get_by_role("button", name="Close the day").click()
    # then
    expect(clerk.get_by_text("Posted").first).to_be_visible()
    expect(clerk.get_by_text("Being sent")).to_have_count(0)
    shown = shop.tenten.ok("day", "show", "houston", "--json").json
    assert {(day["operator"], day["status"]) for day in shown} == {("Ana", "posted")}


def _adds_no_phone_twice_and_asks_before_it_is_removed(clerk: Page, address: str) -> None:
    clerk.get_by_role("link", name="Add phone").click()
    clerk.get_by_label("Phone").fill("(713) 555-0199")
    clerk.get_by_role("button", name="Save").click()
    expect(clerk.get_by_role("alert")).to_contain_text("Phone: The customer has this already.")
    clerk.goto(address)
    clerk.get_by_role("link", name="Change +17135550199").click()
    clerk.get_by_role("link", name="Remove this phone number").click()
    clerk.get_by_role("button", name="Remove").click()
    expect(clerk.get_by_role("status").filter(has_text="The contact is removed.")).to_be_visible()


def test_keyboard_alone_is_enough(shop: Shop, clerk: Page) -> None:
    """To start a new customer, fill in the form, save it, find the customer, and record a sale as with a scanner, which
    sends Enter.
    """
    # when
    clerk.goto(shop.address)
    expect(clerk.get_by_label("Search customers")).to_be_focused()
    clerk.keyboard.press("Escape")
    clerk.keyboard.press("Shift+N")
    clerk.wait_for_url("**/customers/new")
    expect(clerk.get_by_label("First name")).to_be_focused()
    clerk.keyboard.type("Mary")
    clerk.keyboard.press("Tab")
    clerk.keyboard.press("Tab")
    clerk.keyboard.type("Keyes")
    clerk.keyboard.press("Enter")
    expect(clerk.get_by_role("heading", name="Mary Keyes")).to_be_visible()
    expect(clerk.locator("html.live")).to_be_attached()
    clerk.keyboard.press("/")
    clerk.wait_for_url(f"{shop.address}/")
    expect(clerk.get_by_label("Search customers")).to_be_focused()
    clerk.keyboard.type("keyes")
    result = clerk.locator("#results").get_by_role("link", name="Mary Keyes")
    expect(clerk.get_by_role("heading", name="1 result")).to_be_visible()
    clerk.keyboard.press("ArrowDown")
    expect(result).to_be_focused()
    clerk.keyboard.press("ArrowUp")
    clerk.keyboard.press("Enter")
    # then
    expect(clerk.get_by_role("heading", name="Mary Keyes")).to_be_visible()
    # when
    clerk.get_by_role("link", name="New sale").focus()
    clerk.keyboard.press("Enter")
    expect(clerk.get_by_label("Article").first).to_be_focused()
    expect(clerk.get_by_role("status").filter(has_text="0.00")).to_be_visible()
    for text in ("TEA", "2", "1,000.50", "CUP", "", "4", "POT", "", "30"):
        clerk.keyboard.type(text)
        clerk.keyboard.press("Enter")
    expect(clerk.get_by_label("Article").nth(3)).to_be_focused()
    # then
    expect(clerk.get_by_role("status").filter(has_text="2,035.00\u00a0USD")).to_be_visible()
    # when
    clerk.keyboard.press("Enter")
    clerk.keyboard.press("Enter")
    # then
    expect(clerk.locator(".total")).to_have_text("2,035.00\u00a0USD")
    expect(clerk.get_by_role("status").filter(has_text="The sale is recorded.")).to_be_visible()


def test_every_form_works_without_the_script(shop: Shop, new_context: NewContext) -> None:
    """Sign in, register, search, edit, sell, change the language, sign out."""
    # given
    page = sign_in(shop, new_context(java_script_enabled=False).new_page(), "Noa")
    # when
    address = register(shop, page, first_name="Sofia", last_name="Kovalevskaya")
    page.goto(shop.address)
    page.get_by_label("Search customers").fill("koval")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Sofia Kovalevskaya").click()
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Middle name").fill("V.")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="New sale").click()
    page.get_by_label("Article").first.fill("INK")
    page.get_by_role("button", name="More lines").click()
    page.get_by_label("Price (USD)").first.fill("3")
    page.get_by_role("button", name="Record sale").click()
    # then
    expect(page.get_by_text("Sofia V. Kovalevskaya")).to_be_visible()
    expect(page.locator(".total")).to_have_text("3.00\u00a0USD")
    # when
    page.get_by_role("link", name="Noa").click()
    page.get_by_label("Language").select_option("it")
    page.get_by_role("button", name="Save").click()
    page.goto(f"{address}/edit")
    # then
    expect(page.get_by_label("Cognome")).to_have_value("Kovalevskaya")
    expect(page.locator("html")).to_have_attribute("lang", "it")
