"""Orders and sales: those of a day, one of them, a new one."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tenten.producers.till.customer_views import CustomerView, show_customer
from tenten.producers.till.customers import new_id
from tenten.producers.till.transaction_draft import today
from tenten.producers.till.transaction_views import TransactionView, list_transactions, show_transaction
from tenten.producers.till.transactions import record_order, record_sale, resend_transaction
from tenten.runtime.errors import InputRejected, TransactionRejected
from tenten.schemas.messages import AttributeDefinition, Payment, TransactionKind
from tenten.web.store_screen import reasons, selling_form
from tenten.web.store_screen.customer_form import attribute_input, attribute_text
from tenten.web.store_screen.languages import Language
from tenten.web.store_screen.screen import Posted, Screen

METHODS = ("CASH", "CARD")
_LISTED_MAX = 200


def selling_routes(screen: Screen) -> APIRouter:
    """The routes of orders and sales."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/sales")
    def sales(request: Request, day: date | None = None) -> Response:
        """The orders and sales of a business date."""
        channel = screen.channel()
        shown_day = day or today(channel)
        template = "sales_part.html" if "x-fragment" in request.headers else "sales.html"
        found = list_transactions(channel, business_date=shown_day, limit=_LISTED_MAX)
        return screen.show(request, template, transactions=found, day=shown_day, is_today=shown_day == today(channel))

    @router.get("/sales/new")
    def new(request: Request, kind: str = "sale", customer: str = "") -> Response:
        """The form of a new order or sale."""
        view = show_customer(screen.channel(), customer) if customer else None
        return _form(screen, request, {"kind": kind, "transaction_id": new_id()}, view)

    @router.post("/sales")
    def record(request: Request, posted: AForm) -> Response:
        """Record an order or a sale. A form that is sent twice makes one."""
        channel = screen.channel()
        customer_id = posted.text("customer_id")
        view = show_customer(channel, customer_id) if customer_id else None
        if "more" in posted.form:
            return _form(screen, request, posted.form, view)
        lines = selling_form.lines_of(posted.form, screen.language(request))
        found = [] if view else selling_form.candidates(channel, posted.text("customer"))
        refused = list(lines.reasons)
        if not view and posted.text("customer").strip() and len(found) != 1:
            refused.append(reasons.own("customer", "several_found" if found else "nobody_found"))
        if refused:
            views = [show_customer(channel, each) for each in found] if len(found) > 1 else []
            return _form(screen, request, posted.form, view, candidates=views, refusal=TransactionRejected(refused))
        view = view or (show_customer(channel, found[0]) if found else None)
        try:
            recorded = _record(screen, posted, lines, view)
        except TransactionRejected as refusal:
            return _form(screen, request, posted.form, view, refusal=lines.in_form(refusal))
        return screen.done(
            f"/sales/{recorded.transaction_id}", "recorded_order" if posted.text("kind") == "order" else "recorded"
        )

    @router.get("/sales/{transaction_id}")
    def sale(request: Request, transaction_id: str) -> Response:
        """An order or a sale with its lines."""
        template = "sale_part.html" if "x-fragment" in request.headers else "sale.html"
        view = show_transaction(screen.channel(), transaction_id)
        language = screen.language(request)
        attributes = [(each.name, attribute_text(each, language)) for each in view.transaction.attributes]
        return screen.show(request, template, sale=view, attributes=attributes)

    @router.post("/sales/{transaction_id}/resend")
    def resend(transaction_id: str, posted: AForm) -> Response:  # noqa: ARG001 - it checks the form
        """Send a rejected order or sale again."""
        resend_transaction(screen.channel(), transaction_id)
        return screen.done(f"/sales/{transaction_id}", "resent")

    return router


def _record(
    screen: Screen, posted: Posted, lines: selling_form.Lines, customer: CustomerView | None
) -> TransactionView:
    """Raises: `TransactionRejected`."""
    about: dict[str, Any] = {
        "lines": lines.items,
        "customer_id": None if customer is None else customer.customer_id,
        "operator": posted.operator,
        "attributes": _attributes(screen, posted),
        "transaction_id": posted.text("transaction_id") or new_id(),
    }
    if posted.text("kind") == "order":
        return record_order(screen.channel(), deliver_to=posted.text("deliver_to") or None, **about)
    method = posted.text("method") if posted.text("method") in METHODS else METHODS[0]
    payment = Payment(method=method, amount=selling_form.total_of(lines.items, _currency(screen)))
    return record_sale(screen.channel(), payments=[payment], **about)


def _definitions(screen: Screen, kind: str) -> Mapping[str, AttributeDefinition]:
    """The attributes that the legal entity defines for orders, or for sales."""
    of_kind = TransactionKind.ORDER if kind == "order" else TransactionKind.CASH_AND_CARRY
    return screen.channel().transaction_definitions.of_kind(of_kind)


def _attributes(screen: Screen, posted: Posted) -> dict[str, str]:
    """The attributes that were filled in."""
    language = screen.language(posted.request)
    entered = {
        name: attribute_input(definition, posted.text(f"attributes/{name}"), language)
        for name, definition in _definitions(screen, posted.text("kind")).items()
    }
    return {name: text for name, text in entered.items() if text}


def _form(
    screen: Screen,
    request: Request,
    form: Any,
    customer: CustomerView | None,
    *,
    candidates: list[CustomerView] | None = None,
    refusal: InputRejected | None = None,
) -> Response:
    language: Language = screen.language(request)
    kind = "order" if form.get("kind") == "order" else "sale"
    return screen.show(
        request,
        "sale_new.html",
        status=200 if refusal is None else 422,
        kind=kind,
        values=form,
        rows=selling_form.rows_of(form),
        first_row=selling_form.first_new_row(form),
        candidates_max=selling_form.CANDIDATES_MAX,
        transaction_id=form.get("transaction_id") or new_id(),
        customer=customer,
        candidates=candidates or [],
        methods=METHODS,
        attributes=[(f"attributes/{name}", each) for name, each in _definitions(screen, kind).items()],
        currency=_currency(screen),
        decimal=language.decimal,
        **screen.errors(request, refusal),
    )


def _currency(screen: Screen) -> str:
    """The currency of the channel's sales."""
    channel = screen.channel()
    return channel.settings.legal_entity_of(screen.name).currency
