"""Customers: search, history, and where the customer has arrived."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from sqlalchemy.exc import DBAPIError
from starlette.responses import Response

from tenten.headquarters_views.customers import (
    FOUND_MAX,
    CustomerHistory,
    find_by_id,
    find_by_reference,
    read_history,
    search,
)
from tenten.rules.channel_filter import FilterRule
from tenten.rules.reference import entered_reference
from tenten.runtime.error_codes import error_code
from tenten.sql.customer_rows import StoredCustomer
from tenten.sql.engine import consistent_view
from tenten.web.dashboard.access import Visitor
from tenten.web.dashboard.actions import Action
from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.masking import shown_fields, shown_name, shown_value
from tenten.web.dashboard.site import FormKey, Site
from tenten.web.dashboard.snapshot import Snapshot

_QUERY_CANCELED = "57014"
_PATH = "/customers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The channels that have the customer's last version, or may lack it, or do not receive it."""

    state: str
    """For the stylesheet: good, warn or muted."""
    text: str
    channels: tuple[str, ...]


def customer_routes(site: Site) -> APIRouter:
    """`/customers` and `/customers/{customer_id}`."""
    router = APIRouter(include_in_schema=False)

    @router.get(_PATH)
    def form(request: Request) -> Response:
        return site.page(site.access.visitor(request), "customers.html", _PATH, found=None, words="", too_long=False)

    @router.post(_PATH)
    def results(request: Request, form_key: FormKey = "", words: Annotated[str, Form()] = "") -> Response:
        """What is searched for is personal data: it is in no address, and in no log."""
        visitor = site.access.sender(request, form_key)
        words = words.replace("\x00", " ")
        with consistent_view(site.engine) as headquarters:
            found: list[StoredCustomer] | None = find_by_id(headquarters, words)
        if not found and entered_reference(words) is not None:
            found = _found_by_reference(site, words)
        # A reference without its hyphen may be a name.
        if visitor.is_operator and words.strip() and (found == [] or (found and _may_be_name(words))):
            found = _together(found, _found_by_personal_data(site, visitor, words))
        shown = [{"customer": row, "name": _name(row, visitor)} for row in found or ()]
        return site.page(
            visitor,
            "customers.html",
            _PATH,
            found=shown,
            words=words,
            too_long=found is None,
            is_cut=len(shown) == FOUND_MAX,
        )

    @router.get(f"{_PATH}/{{customer_id}}")
    def masked(request: Request, customer_id: str) -> Response:
        visitor = site.access.visitor(request)
        return site.page(visitor, "customer.html", _PATH, **_values(site, customer_id, is_open=False))

    @router.post(f"{_PATH}/{{customer_id}}/personal-data")
    def open_(request: Request, customer_id: str, form_key: FormKey = "") -> Response:
        """Show the personal data once: another look is another request, and another row of the record."""
        visitor = site.access.operator(request, form_key)
        with consistent_view(site.engine) as headquarters:
            if read_history(headquarters, customer_id) is None:
                raise _missing()
        with site.actions.recorded(visitor, Action.SHOW_CUSTOMER, customer_id):
            values = _values(site, customer_id, is_open=True)
        return site.page(visitor, "customer.html", _PATH, **values)

    return router


def _may_be_name(words: str) -> bool:
    return entered_reference(words) is not None and "-" not in words


def _together(first: list[StoredCustomer], more: list[StoredCustomer] | None) -> list[StoredCustomer] | None:
    """Each customer once; None if neither is known."""
    if more is None:
        return first or None
    return list({row.customer_id: row for row in (*first, *more)}.values())[:FOUND_MAX]


def _found_by_reference(site: Site, words: str) -> list[StoredCustomer] | None:
    """The customers with this short reference; None if that takes too long."""

    def read() -> list[StoredCustomer]:
        with consistent_view(site.engine) as headquarters:
            return find_by_reference(headquarters, words)

    return _in_time(read)


def _found_by_personal_data(site: Site, visitor: Visitor, words: str) -> list[StoredCustomer] | None:
    """The customers with this name, phone or e-mail; None if that takes too long. Recorded without the words: what is
    found tells whose they are.
    """

    def read() -> list[StoredCustomer]:
        with site.actions.recorded(visitor, Action.SEARCH_CUSTOMERS, ""), consistent_view(site.engine) as headquarters:
            return search(headquarters, words)

    return _in_time(read)


def _in_time(read: Callable[[], list[StoredCustomer]]) -> list[StoredCustomer] | None:
    """What is found; None if the database has ended the search. Raises: as `read` but for that."""
    try:
        return read()
    except DBAPIError as error:
        if error_code(error) != _QUERY_CANCELED:
            raise
        return None


def _missing() -> NotFound:
    return NotFound("Headquarters has no customer with this id.")


def _name(customer: StoredCustomer, visitor: Visitor) -> str:
    """The name as a list shows it: a viewer sees nothing of it."""
    return shown_name(customer.state, is_open=False) if visitor.is_operator else ""


def _values(site: Site, customer_id: str, *, is_open: bool) -> dict[str, Any]:
    """Raises: `NotFound`."""
    with consistent_view(site.engine) as headquarters:
        history = read_history(headquarters, customer_id)
    if history is None:
        raise _missing()
    customer = history.customer
    return {
        "history": history,
        "customer": customer,
        "is_open": is_open,
        "fields": [] if customer is None else shown_fields(customer.state, is_open=is_open),
        "audit": [
            {
                "row": row,
                "old": shown_value(row.path, row.old_value, is_open=is_open),
                "new": shown_value(row.path, row.new_value, is_open=is_open),
            }
            for row in history.audit
        ],
        "origin": history.events[-1] if history.events else None,
        "arrivals": arrivals(history, site.snapshots.current()),
    }


def arrivals(history: CustomerHistory, snapshot: Snapshot) -> Sequence[Arrival]:
    """Every channel: one that was complete after the last version was written has it."""
    customer = history.customer
    if customer is None or snapshot.database is None:
        return ()
    complete = {row.channel_id: row.complete_at for row in snapshot.stores}
    found: dict[str, list[str]] = {"has": [], "behind": [], "unknown": [], "other": []}
    for channel in sorted(snapshot.database.channels.values(), key=lambda channel: channel.channel_id):
        rule = FilterRule(
            legal_entity=channel.legal_entity,
            address_books=channel.address_books,
            offline_customers=channel.offline_customers,
        )
        at = complete.get(channel.channel_id)
        if not rule.accepts(customer.state.legal_entity, customer.state.address_books):
            found["other"].append(channel.channel_id)
        elif at is None:
            found["unknown"].append(channel.channel_id)
        else:
            found["has" if at >= customer.updated_at else "behind"].append(channel.channel_id)
    what = "its deletion" if customer.erased else f"version {customer.version}"
    texts = {
        "behind": ("warn", f"may lack {what}, as last complete before it was written"),
        "unknown": ("warn", "not known, as never reported to be complete"),
        "has": ("good", f"{'has' if len(found['has']) == 1 else 'have'} {what}"),
        "other": (
            "muted",
            f"{'does' if len(found['other']) == 1 else 'do'} not receive it: another legal entity or address book",
        ),
    }
    return [
        Arrival(state=state, text=text, channels=tuple(found[name]))
        for name, (state, text) in texts.items()
        if found[name]
    ]
