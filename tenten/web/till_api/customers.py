"""Operations on customers, and their cards."""

import asyncio
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tenten.producers.till.customer_views import CustomerStatus, CustomerView, show_customer
from tenten.producers.till.customers import create_customer, edit_customer
from tenten.producers.till.discard import discard_rejected
from tenten.producers.till.documents import card_document, customer_document
from tenten.producers.till.loyalty import CardStatus, issue_card
from tenten.producers.till.search import list_customers, search_page
from tenten.producers.till.sync_create import sync_seconds_of
from tenten.rules.definitions import LOYALTY_CARD
from tenten.runtime.errors import DatabaseRefused, NoSuchCustomer
from tenten.web.till_api import examples, headers
from tenten.web.till_api.cursors import cursor, invalid_cursor, position_of
from tenten.web.till_api.document import Document
from tenten.web.till_api.exact_json import ExactRoute
from tenten.web.till_api.fields import customer_fields, named_as_in, renamed
from tenten.web.till_api.inputs import CardInput, ChangeInput, CustomerInput
from tenten.web.till_api.openapi import header, with_headers
from tenten.web.till_api.outputs import CardOutput, CustomerOutput, CustomersOutput, answer, refusals
from tenten.web.till_api.till import Till

PAGE_MAX: Final = 200

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")]

_CREATED: Final = ("ETag", "Location", "Preference-Applied")
_SEARCHED: Final = "a name by the beginnings of its words; account number, phone, e-mail, card or reference in full"

_KEY: Final = header(headers.IDEMPOTENCY_KEY, "a GUID: the same request again changes nothing more", format="uuid")
_OPERATOR: Final = header(headers.OPERATOR, "the person who makes the change, if the body has no `operator`")


def customer_routes(till: Till) -> APIRouter:
    """The routes below /v1/customers."""
    router = APIRouter(prefix="/v1/customers", tags=["customers"], route_class=ExactRoute)

    @router.post(
        "",
        status_code=201,
        operation_id="create_customer",
        responses={
            201: answer(CustomerOutput, examples.CUSTOMER, "It has its account number.", *_CREATED),
            202: answer(
                CustomerOutput, examples.PENDING, "It is stored, and gets its account number later.", *_CREATED
            ),
            **refusals(404, 409, 415),
        },
        openapi_extra=with_headers(
            _KEY,
            _OPERATOR,
            header(
                "Prefer",
                "`wait=2`: wait up to two seconds (at most 30) for the account number; `respond-async` alone: do not",
            ),
        ),
    )
    async def create(request: Request, body: CustomerInput) -> Response:  # type: ignore[valid-type]
        """Create a customer. The idempotency key becomes its id. Works without a connection to headquarters."""
        return await _create(till, request, body)

    @router.get(
        "",
        operation_id="find_customers",
        responses={
            200: answer(
                CustomersOutput, {"customers": [examples.CUSTOMER], "next_cursor": None}, "The best matches first."
            ),
            **refusals(),
        },
    )
    async def find(
        q: Annotated[str, Query(max_length=500, description=_SEARCHED)] = "",
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Search customers; without a text, list all of them."""
        return await _find(till, q, limit, cursor)

    @router.get(
        "/{customer_id}",
        operation_id="show_customer",
        responses={
            200: answer(CustomerOutput, examples.CUSTOMER, "The customer.", "ETag"),
            **refusals(404),
        },
    )
    async def show(customer_id: UUID) -> Response:
        """A customer as the store shows it; its `ETag` changes with its fields."""
        return _answered(await till.call(show_customer, str(customer_id)))

    @router.patch(
        "/{customer_id}",
        operation_id="edit_customer",
        responses={
            200: answer(CustomerOutput, examples.PENDING, "The customer.", "ETag"),
            **refusals(404, 409, 412, 415),
        },
        openapi_extra=with_headers(
            _KEY, _OPERATOR, header("If-Match", "`ETag` of the customer that the clerk has seen")
        ),
    )
    async def edit(request: Request, customer_id: UUID, body: CustomerInput) -> Response:  # type: ignore[valid-type]
        """Change the given fields; the others are unchanged."""
        return await _edit(till, request, str(customer_id), body)

    _add_card_and_discard(router, till)
    return router


def _add_card_and_discard(router: APIRouter, till: Till) -> None:
    @router.post(
        "/{customer_id}/cards",
        status_code=201,
        operation_id="issue_card",
        responses={
            201: answer(CardOutput, examples.ISSUED_CARD, "The card is issued."),
            202: answer(
                CardOutput, examples.ISSUED_CARD | {"status": "kept"}, "It is issued when the account number arrives."
            ),
            **refusals(404, 415),
        },
        openapi_extra=with_headers(_OPERATOR),
    )
    async def card(request: Request, customer_id: UUID, body: CardInput) -> Response:
        """Issue a loyalty card, or reserve it for a customer without an account number. Idempotent."""
        operator = headers.operator(request, body.operator)
        with headers.operator_named(request, body.operator), renamed({LOYALTY_CARD: "card_number"}):
            issued = await till.write(issue_card, str(customer_id), body.card_number, keep=body.keep, operator=operator)
        return Document(card_document(issued), 201 if issued.status is CardStatus.ISSUED else 202)

    @router.post(
        "/{customer_id}/discard",
        operation_id="discard_changes",
        responses={
            200: answer(CustomerOutput, examples.CUSTOMER, "What remains of the customer.", "ETag"),
            204: {"description": "Headquarters never accepted the customer: nothing remains."},
            **refusals(404, 415),
        },
    )
    async def discard(customer_id: UUID, _: ChangeInput | None = None) -> Response:
        """Discard the changes that headquarters has rejected. Idempotent."""
        remaining = await till.write(discard_rejected, str(customer_id))
        return Response(status_code=204) if remaining is None else _answered(remaining)


def _answered(view: CustomerView, status: int = 200, more: dict[str, str] | None = None) -> Response:
    return Document(customer_document(view), status, {"ETag": f'"{view.content_tag}"', **(more or {})})


async def _create(till: Till, request: Request, body: Any) -> Response:
    key = headers.idempotency_key(request)
    digest = None if key is None else await headers.digest_of(request, "create_customer")
    operator = headers.operator(request, body.operator)
    wanted_seconds = headers.wait_seconds(request)
    seconds = await till.call(sync_seconds_of) if wanted_seconds is None else wanted_seconds
    # Before the customer exists, so that its number cannot be missed.
    began_at = await _now(till, seconds) if seconds > 0 else None
    with headers.operator_named(request, body.operator), named_as_in(body, is_new=True):
        view = await till.write(
            create_customer, customer_id=key, operator=operator, digest=digest, **customer_fields(body)
        )
    if view.status is CustomerStatus.PENDING and began_at is not None:
        view = await _settled(till, view, began_at, seconds)
    applied = {} if wanted_seconds is None else {"Preference-Applied": f"wait={wanted_seconds}"}
    location = {"Location": f"/v1/customers/{view.customer_id}"}
    return _answered(view, 202 if view.account_number is None else 201, location | applied)


async def _now(till: Till, seconds: float) -> int | None:
    """From where events are new; None if the database does not answer, which the creation will say."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await till.feed.now()
    return None


async def _settled(till: Till, view: CustomerView, began_at: int, seconds: float) -> CustomerView:
    """The customer when headquarters has replied, or after so many seconds. It is recorded: a failed read must not look
    like a failed creation.
    """
    with suppress(DatabaseRefused, NoSuchCustomer):
        if await till.feed.settled(view.customer_id, began_at, seconds):
            return await till.call(show_customer, view.customer_id)
    return view


async def _find(till: Till, text: str, limit: int, given: str | None) -> Response:
    position = position_of(given)
    if text.strip():
        first = _first_of(position, text)
        views, has_more = await till.call(search_page, text, limit, first)
        following = cursor(f"{first + limit} {_mark(text)}") if has_more else None
    else:
        views = await till.call(list_customers, limit, position)
        following = cursor(views[-1].customer_id) if len(views) == limit else None
    return Document({"customers": [customer_document(view) for view in views], "next_cursor": following})


def _first_of(position: str | None, text: str) -> int:
    """The place in the list of this search where the page begins. Raises: `Problem` 422, for that of another one."""
    if position is None:
        return 0
    first, _, mark = position.partition(" ")
    if not first.isdecimal() or mark != _mark(text):
        raise invalid_cursor()
    return min(int(first), 10**6)


def _mark(text: str) -> str:
    """Tells the search for this text from others."""
    return sha256(text.strip().encode()).hexdigest()[:8]


async def _edit(till: Till, request: Request, customer_id: str, body: Any) -> Response:
    key = headers.idempotency_key(request)
    digest = None if key is None else await headers.digest_of(request, f"edit_customer {customer_id}")
    with headers.operator_named(request, body.operator), named_as_in(body, is_new=False):
        view = await till.write(
            edit_customer,
            customer_id,
            event_id=key,
            operator=headers.operator(request, body.operator),
            digest=digest,
            content_tags=headers.expected_tags(request),
            **customer_fields(body),
        )
    return _answered(view)
