"""Customers: search, a new one, details, and their fields."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tenten.producers.till.customer_views import CustomerView, show_customer
from tenten.producers.till.customers import edit_customer, new_id
from tenten.producers.till.discard import discard_rejected
from tenten.producers.till.loyalty import CardStatus, cards_of, issue_card
from tenten.producers.till.search import recently_changed, search_customers
from tenten.producers.till.sync_create import register_customer
from tenten.producers.till.transaction_views import list_transactions, transactions_with_reference
from tenten.rules.definitions import LOYALTY_CARD
from tenten.runtime.errors import CustomerRejected, InputRejected
from tenten.schemas.messages import ReceiptPreference, TransactionStatus
from tenten.web.store_screen import customer_form, reasons
from tenten.web.store_screen.screen import Posted, Screen

_RESULTS_MAX = 30
_TRANSACTIONS_MAX = 1_000


def customer_routes(screen: Screen) -> APIRouter:
    """The routes that show customers."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/")
    def customers(request: Request, q: str = "") -> Response:
        """The customers that were changed last, or those of a link with words to search for."""
        return found(request, q)

    @router.post("/")
    def search(request: Request, posted: AForm) -> Response:
        """Search as one types. What is searched for is personal data: it is in no address."""
        return found(request, posted.text("q"))

    def found(request: Request, q: str) -> Response:
        channel = screen.channel()
        is_part = "x-fragment" in request.headers
        views = search_customers(channel, q, _RESULTS_MAX + 1) if q.strip() else recently_changed(channel)
        sales = transactions_with_reference(channel, q) if q.strip() else []
        template = "customers_found.html" if is_part else "customers.html"
        return screen.show(request, template, q=q, customers=views, transactions=sales, limit=_RESULTS_MAX)

    @router.get("/customers/{customer_id}")
    def details(request: Request, customer_id: str) -> Response:
        """A customer with everything that belongs to them."""
        return _details(screen, request, show_customer(screen.channel(), customer_id))

    @router.get("/customers/{customer_id}/cards")
    def card_form(request: Request, customer_id: str) -> Response:
        """The form of a loyalty card: whether it is issued or reserved depends on the account number."""
        view = show_customer(screen.channel(), customer_id)
        return screen.show(request, "card_part.html", customer=view, card="", errors={})

    return router


def new_customer_routes(screen: Screen) -> APIRouter:
    """The routes of the form of a new customer."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/customers/new")
    def new(request: Request) -> Response:
        """The form of a new customer."""
        values = customer_form.new_values(screen.channel(), screen.language(request))
        return _new_form(screen, request, values, new_id())

    @router.post("/customers")
    def create(request: Request, posted: AForm) -> Response:
        """Register a customer. A form that is sent twice makes one."""
        channel, language = screen.channel(), screen.language(request)
        before = customer_form.new_values(channel, language)
        entered = {name: posted.form.get(name, before[name]) for name in before}
        changes = {name: text for name, text in entered.items() if text.strip() != before[name]}
        try:
            if customer_form.is_country_alone(changes):
                raise CustomerRejected([reasons.own("address.street", "empty_address")])
            fields = customer_form.fields_of(changes, before, channel.definitions, language)
            if posted.text("marketing_consent"):
                fields["put_contacts"] = customer_form.agreed_contacts(fields, channel.country)
            made = register_customer(
                channel, customer_id=posted.text("customer_id") or new_id(), operator=posted.operator, **fields
            )
        except CustomerRejected as refusal:
            entered["marketing_consent"] = posted.text("marketing_consent")
            return _new_form(screen, request, entered, posted.text("customer_id"), refusal)
        return screen.done(f"/customers/{made.customer_id}", "created")

    return router


def edit_routes(screen: Screen) -> APIRouter:
    """The routes that change a customer."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/customers/{customer_id}/edit")
    def edit_form(request: Request, customer_id: str) -> Response:
        """The form of a customer's fields."""
        view = show_customer(screen.channel(), customer_id)
        values = customer_form.values_of(view.state, screen.channel().definitions, screen.language(request))
        return _edit_form(screen, request, view, values, values)

    @router.post("/customers/{customer_id}/edit")
    def edit(request: Request, customer_id: str, posted: AForm) -> Response:
        """Write the fields that the clerk has changed."""
        channel, language = screen.channel(), screen.language(request)
        with screen.editing:
            view = show_customer(channel, customer_id)
            now = customer_form.values_of(view.state, channel.definitions, language)
            try:
                if conflicts := customer_form.conflicts(posted.form, now):
                    raise CustomerRejected(conflicts)
                changes = customer_form.changed(posted.form, now)
                fields = customer_form.fields_of(changes, now, channel.definitions, language)
                edit_customer(channel, customer_id, operator=posted.operator, **fields)
            except CustomerRejected as refusal:
                values = customer_form.shown_again(posted.form, now)
                return _edit_form(screen, request, view, values, now, refusal=refusal)
        return screen.done(f"/customers/{customer_id}", "saved")

    @router.get("/customers/{customer_id}/discard")
    def discard_form(request: Request, customer_id: str) -> Response:
        """Ask before rejected changes are discarded."""
        view = show_customer(screen.channel(), customer_id)
        return screen.show(request, "discard.html", customer=view, errors={}, is_needed=_is_needed(screen, view))

    @router.post("/customers/{customer_id}/discard")
    def discard(customer_id: str, posted: AForm) -> Response:
        """Discard rejected changes."""
        channel = screen.channel()
        try:
            left = discard_rejected(channel, customer_id)
        except CustomerRejected as refusal:
            customer = show_customer(channel, customer_id)
            errors = screen.errors(posted.request, refusal)
            return screen.show(posted.request, "discard.html", status=422, customer=customer, is_needed=True, **errors)
        return screen.done("/attention" if left is None else f"/customers/{customer_id}", "discarded")

    @router.post("/customers/{customer_id}/cards")
    def card(request: Request, customer_id: str, posted: AForm) -> Response:
        """Issue a loyalty card, or reserve it until the customer has a number."""
        channel = screen.channel()
        try:
            issued = issue_card(channel, customer_id, posted.text(LOYALTY_CARD), keep=True, operator=posted.operator)
        except CustomerRejected as refusal:
            view = show_customer(channel, customer_id)
            return _details(screen, request, view, card=posted.text(LOYALTY_CARD), refusal=refusal)
        done = "card_reserved" if issued.status is CardStatus.KEPT else "card_issued"
        return screen.done(f"/customers/{customer_id}", done)

    return router


def _details(
    screen: Screen, request: Request, view: CustomerView, *, card: str = "", refusal: InputRejected | None = None
) -> Response:
    channel = screen.channel()
    is_part = "x-fragment" in request.headers
    return screen.show(
        request,
        "customer_part.html" if is_part else "customer.html",
        status=200 if refusal is None else 422,
        customer=view,
        cards=cards_of(channel, view.customer_id),
        transactions=list_transactions(channel, customer_id=view.customer_id, limit=20),
        attributes=_attributes(screen, request, view),
        card=card,
        **screen.errors(request, refusal),
    )


def _is_needed(screen: Screen, view: CustomerView) -> bool:
    """True if an order or a sale may need the customer's rejected change, so that it cannot be discarded."""
    finished = [TransactionStatus.SYNCHRONIZED, *([TransactionStatus.REJECTED] if view.account_number else [])]
    found = list_transactions(screen.channel(), customer_id=view.customer_id, limit=_TRANSACTIONS_MAX)
    return any(sale.status not in finished for sale in found)


def _attributes(screen: Screen, request: Request, view: CustomerView) -> list[tuple[str, str]]:
    """Labels and values of the customer's attributes."""
    definitions, language = screen.channel().definitions.attributes, screen.language(request)
    return [
        (
            (definitions[attribute.name].label if attribute.name in definitions else "") or attribute.name,
            customer_form.attribute_text(attribute, language),
        )
        for attribute in view.state.attributes
        if attribute.name != LOYALTY_CARD
    ]


def _new_form(
    screen: Screen, request: Request, values: dict[str, str], customer_id: str, refusal: InputRejected | None = None
) -> Response:
    return screen.show(
        request,
        "customer_new.html",
        status=200 if refusal is None else 422,
        values=values,
        was={},
        customer_id=customer_id or new_id(),
        **_choices(screen, [name for name in values if name.startswith("attributes/")]),
        **screen.errors(request, refusal),
    )


def _edit_form(
    screen: Screen,
    request: Request,
    view: CustomerView,
    values: dict[str, str],
    was: dict[str, str],
    *,
    refusal: InputRejected | None = None,
) -> Response:
    return screen.show(
        request,
        "customer_edit.html",
        status=200 if refusal is None else 422,
        customer=view,
        values=values,
        was=was,
        rejected=screen.errors(request, CustomerRejected(view.reasons) if view.reasons else None)["errors"],
        **_choices(screen, [name for name in was if name.startswith("attributes/")]),
        **screen.errors(request, refusal),
    )


def _choices(screen: Screen, attributes: list[str]) -> dict[str, Any]:
    """What the fields offer, by the definitions of the legal entity."""
    definitions = screen.channel().definitions
    return {
        "groups": sorted(definitions.groups),
        "receipts": list(ReceiptPreference),
        "attributes": [(name, definitions.attributes.get(name.removeprefix("attributes/"))) for name in attributes],
    }
