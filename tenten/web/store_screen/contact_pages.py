"""The addresses, phone numbers and e-mail addresses of a customer."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tenten.producers.till.customer_input import CustomerFields
from tenten.producers.till.customer_merge import ADDRESS_PARTS, clean
from tenten.producers.till.customer_views import CustomerView, show_customer
from tenten.producers.till.customers import edit_customer, new_id
from tenten.rules.contact_points import normal_email, normal_phone
from tenten.rules.limits import PURPOSES
from tenten.runtime.errors import CustomerRejected
from tenten.schemas.messages import EMAIL, PHONE, Address, Contact, CustomerType, Reason
from tenten.web.store_screen import customer_form, reasons
from tenten.web.store_screen.screen import Posted, Screen

_CONTACT_PARTS = ("value", "description", "marketing_consent")
Kind = Literal["phone", "email"]


def address_routes(screen: Screen) -> APIRouter:
    """The routes of addresses. A new one has the id that its form was given."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/customers/{customer_id}/addresses/new")
    def new_address(request: Request, customer_id: str) -> Response:
        """The form of a new address."""
        return _address_form(screen, request, show_customer(screen.channel(), customer_id), new_id())

    @router.get("/customers/{customer_id}/addresses/{address_id}")
    def address(request: Request, customer_id: str, address_id: str) -> Response:
        """The form of an address."""
        return _address_form(screen, request, show_customer(screen.channel(), customer_id), address_id)

    @router.post("/customers/{customer_id}/addresses/{address_id}")
    def put_address(request: Request, customer_id: str, address_id: str, posted: AForm) -> Response:
        """Add or change an address."""
        with screen.editing:
            view = show_customer(screen.channel(), customer_id)
            stored = _address(view, address_id) or _new_address(screen, view, address_id)
            now = customer_form.address_values(stored)
            changed: dict[str, Any] = customer_form.changed(posted.form, now)
            fields = CustomerFields(put_addresses=[replace(stored, **changed)])
            if posted.text("primary") or not view.state.addresses:
                fields["primary_address"] = address_id
            found = customer_form.conflicts(posted.form, now)
            if not any(clean(changed.get(part, now[part])) for part in ("street", "city")):
                found.append(reasons.own("street", "empty_address"))
            refusal = _edit(screen, posted, customer_id, fields, found)
        if refusal is not None:
            return _address_form(screen, request, view, address_id, posted=posted, refusal=refusal)
        return screen.done(f"/customers/{customer_id}", "saved")

    @router.get("/customers/{customer_id}/addresses/{address_id}/remove")
    def ask_to_remove(request: Request, customer_id: str, address_id: str) -> Response:
        """Ask before an address is removed."""
        view = show_customer(screen.channel(), customer_id)
        stored = _address(view, address_id)
        if stored is None:
            raise HTTPException(404)
        return screen.show(request, "remove.html", customer=view, address=stored, contact=None)

    @router.post("/customers/{customer_id}/addresses/{address_id}/remove")
    def remove_address(customer_id: str, address_id: str, posted: AForm) -> Response:
        """Remove an address."""
        edit_customer(screen.channel(), customer_id, operator=posted.operator, remove_addresses=[address_id])
        return screen.done(f"/customers/{customer_id}", "removed_address")

    return router


def contact_routes(screen: Screen) -> APIRouter:
    """The routes of phone numbers and e-mail addresses."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/customers/{customer_id}/contacts/new")
    def new_contact(request: Request, customer_id: str, kind: Kind = "phone") -> Response:
        """The form of a new phone number or e-mail address."""
        view = show_customer(screen.channel(), customer_id)
        return _contact_form(screen, request, view, Contact(contact_id=new_id(), kind=kind.upper(), value=""))

    @router.get("/customers/{customer_id}/contacts/{contact_id}")
    def contact(request: Request, customer_id: str, contact_id: str) -> Response:
        """The form of a phone number or an e-mail address."""
        view = show_customer(screen.channel(), customer_id)
        stored = _contact(view, contact_id) or Contact(contact_id=contact_id, kind=PHONE, value="")
        return _contact_form(screen, request, view, stored)

    @router.post("/customers/{customer_id}/contacts/{contact_id}")
    def put_contact(request: Request, customer_id: str, contact_id: str, posted: AForm) -> Response:
        """Add or change a phone number or an e-mail address."""
        with screen.editing:
            view = show_customer(screen.channel(), customer_id)
            kind = EMAIL if posted.text("kind") == EMAIL else PHONE
            stored = _contact(view, contact_id) or Contact(contact_id=contact_id, kind=kind, value="")
            now = customer_form.contact_values(stored)
            changes = customer_form.changed(posted.form, now)
            value, description = changes.get("value", stored.value), changes.get("description", stored.description)
            consent = bool(changes["marketing_consent"]) if "marketing_consent" in changes else stored.marketing_consent
            after = replace(stored, value=value, description=description, marketing_consent=consent)
            fields = CustomerFields(put_contacts=[after])
            _make_primary(fields, view, after, wanted=bool(posted.text("primary")))
            found = customer_form.conflicts(posted.form, now)
            if "value" in changes and _has(screen, view, after):
                found.append(reasons.own("value", "already_there"))
            refusal = _edit(screen, posted, customer_id, fields, found)
        if refusal is not None:
            return _contact_form(screen, request, view, stored, posted=posted, refusal=refusal)
        return screen.done(f"/customers/{customer_id}", "saved")

    @router.get("/customers/{customer_id}/contacts/{contact_id}/remove")
    def ask_to_remove(request: Request, customer_id: str, contact_id: str) -> Response:
        """Ask before a phone number or an e-mail address is removed."""
        view = show_customer(screen.channel(), customer_id)
        stored = _contact(view, contact_id)
        if stored is None:
            raise HTTPException(404)
        return screen.show(request, "remove.html", customer=view, address=None, contact=stored)

    @router.post("/customers/{customer_id}/contacts/{contact_id}/remove")
    def remove_contact(customer_id: str, contact_id: str, posted: AForm) -> Response:
        """Remove a phone number or an e-mail address."""
        edit_customer(screen.channel(), customer_id, operator=posted.operator, remove_contacts=[contact_id])
        return screen.done(f"/customers/{customer_id}", "removed")

    return router


def _has(screen: Screen, view: CustomerView, contact: Contact) -> bool:
    """Whether the customer has the same phone number or e-mail address already, in any notation."""

    def normal(value: str) -> str:
        found = normal_email(value) if contact.kind == EMAIL else normal_phone(value, screen.channel().country)
        return found or clean(value)

    others = [each for each in view.state.contacts if each.contact_id != contact.contact_id]
    return any(each.kind == contact.kind and normal(each.value) == normal(contact.value) for each in others)


def _make_primary(fields: CustomerFields, view: CustomerView, contact: Contact, *, wanted: bool) -> None:
    if contact.kind == EMAIL and (wanted or view.state.primary_email is None):
        fields["primary_email"] = contact.contact_id
    elif contact.kind == PHONE and (wanted or view.state.primary_phone is None):
        fields["primary_phone"] = contact.contact_id


def _edit(
    screen: Screen, posted: Posted, customer_id: str, fields: CustomerFields, conflicts: list[Reason]
) -> CustomerRejected | None:
    """Write the edit; its refusal, with the fields as the form names them."""
    try:
        if conflicts:
            raise CustomerRejected(conflicts)
        edit_customer(screen.channel(), customer_id, operator=posted.operator, **fields)
    except CustomerRejected as refusal:
        return CustomerRejected([replace(reason, field=_part(reason.field)) for reason in refusal.reasons])
    return None


def _part(field: str) -> str:
    """The field of the form that a reason about an address or a contact belongs to.

    >>> _part("addresses[2].city"), _part("address.city"), _part("phone"), _part("last_name")
    ('city', 'city', 'value', 'last_name')
    """
    if field.startswith(("address.", "addresses[", "contacts[")):
        return field.rpartition(".")[2]
    return "value" if field in ("phone", "email") else field


def _address(view: CustomerView, address_id: str) -> Address | None:
    return next((address for address in view.state.addresses if address.address_id == address_id), None)


def _new_address(screen: Screen, view: CustomerView, address_id: str) -> Address:
    purpose = "HOME" if view.state.customer_type is CustomerType.PERSON else "BUSINESS"
    country = screen.channel().country
    return Address(address_id=address_id, purpose=purpose, country=country, updated_at=datetime.now(UTC))


def _contact(view: CustomerView, contact_id: str) -> Contact | None:
    return next((contact for contact in view.state.contacts if contact.contact_id == contact_id), None)


def _address_form(
    screen: Screen,
    request: Request,
    view: CustomerView,
    address_id: str,
    *,
    posted: Posted | None = None,
    refusal: CustomerRejected | None = None,
) -> Response:
    stored = _address(view, address_id)
    now = customer_form.address_values(stored or _new_address(screen, view, address_id))
    return screen.show(
        request,
        "address.html",
        customer=view,
        address_id=address_id,
        is_new=stored is None,
        is_primary=bool(posted and posted.text("primary")) or view.state.primary_address == address_id,
        purposes=sorted(PURPOSES),
        parts=ADDRESS_PARTS,
        **_filled(screen, request, now, posted, refusal),
    )


def _contact_form(
    screen: Screen,
    request: Request,
    view: CustomerView,
    stored: Contact,
    *,
    posted: Posted | None = None,
    refusal: CustomerRejected | None = None,
) -> Response:
    is_primary = stored.contact_id in (view.state.primary_email, view.state.primary_phone)
    return screen.show(
        request,
        "contact.html",
        customer=view,
        contact=stored,
        is_new=_contact(view, stored.contact_id) is None,
        is_primary=bool(posted and posted.text("primary")) or is_primary,
        **_filled(screen, request, customer_form.contact_values(stored), posted, refusal),
    )


def _filled(
    screen: Screen, request: Request, now: Mapping[str, str], posted: Posted | None, refusal: CustomerRejected | None
) -> dict[str, Any]:
    """The values of a form, with the reasons beside its fields."""
    values = dict(now) if posted is None else customer_form.shown_again(posted.form, now)
    status = 200 if refusal is None else 422
    return {"status": status, "values": values, "was": now, **screen.errors(request, refusal)}
