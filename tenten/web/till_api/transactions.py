"""Operations on orders and cash-and-carry sales."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tenten.producers.till.documents import transaction_document
from tenten.producers.till.transaction_draft import Item
from tenten.producers.till.transaction_views import TransactionView, list_transactions, show_transaction
from tenten.producers.till.transactions import record_order, record_sale, resend_transaction
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.messages import CodedAmount, Payment, TransactionKind, TransactionStatus
from tenten.web.till_api import examples, headers
from tenten.web.till_api.cursors import cursor, position_of
from tenten.web.till_api.customers import Cursor, Limit
from tenten.web.till_api.document import Document
from tenten.web.till_api.exact_json import ExactRoute
from tenten.web.till_api.fields import unknown_customer_is_a_field
from tenten.web.till_api.inputs import CodedAmountInput, Day, OrderInput, SaleInput
from tenten.web.till_api.openapi import header, with_headers
from tenten.web.till_api.outputs import TransactionOutput, TransactionsOutput, answer, refusals
from tenten.web.till_api.till import Till

_CREATED_HEADERS: Final = with_headers(
    header(headers.IDEMPOTENCY_KEY, "a GUID, which becomes the id: a repeat changes nothing", format="uuid"),
    header(headers.OPERATOR, "the person who sells, if the body has no `operator`"),
)


def order_routes(till: Till) -> APIRouter:
    """The routes below /v1/orders."""
    router = APIRouter(prefix="/v1/orders", tags=["orders"], route_class=ExactRoute)

    @router.post(
        "",
        status_code=201,
        operation_id="record_order",
        responses={201: answer(TransactionOutput, examples.ORDER, "The order.", "Location"), **refusals(404, 409, 415)},
        openapi_extra=_CREATED_HEADERS,
    )
    async def create(request: Request, body: OrderInput) -> Response:
        """Record an order. Works without a connection, and before its customer has an account number."""
        more = {"deliver_to": body.deliver_to, "delivery_mode": body.delivery_mode}
        return await _record(till, request, body, TransactionKind.ORDER, more)

    _add_reading(router, till, TransactionKind.ORDER, examples.ORDER)
    return router


def sale_routes(till: Till) -> APIRouter:
    """The routes below /v1/sales."""
    router = APIRouter(prefix="/v1/sales", tags=["sales"], route_class=ExactRoute)

    @router.post(
        "",
        status_code=201,
        operation_id="record_sale",
        responses={201: answer(TransactionOutput, examples.SALE, "The sale.", "Location"), **refusals(404, 409, 415)},
        openapi_extra=_CREATED_HEADERS,
    )
    async def create(request: Request, body: SaleInput) -> Response:
        """Record a cash-and-carry sale, or a return with negative quantities. Works without a connection."""
        return await _record(till, request, body, TransactionKind.CASH_AND_CARRY, {})

    _add_reading(router, till, TransactionKind.CASH_AND_CARRY, examples.SALE)
    return router


def _add_reading(router: APIRouter, till: Till, kind: TransactionKind, example: dict[str, Any]) -> None:
    """Show one, list, send again: the same for orders and sales."""
    name = _NAMES[kind]

    @router.get(
        "",
        operation_id=f"list_{name}s",
        description=f"List the {name}s, the newest first.",
        responses={
            200: answer(TransactionsOutput, {"transactions": [example], "next_cursor": None}, "The newest first."),
            **refusals(),
        },
    )
    async def list_(
        business_date: Annotated[Day | None, Query()] = None,
        status: TransactionStatus | None = None,
        customer_id: UUID | None = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        after = position_of(cursor)
        views = await till.call(
            list_transactions,
            kind,
            business_date=business_date,
            status=status,
            customer_id=None if customer_id is None else str(customer_id),
            limit=limit,
            after=after,
        )
        return Document(_page(views, limit))

    @router.get(
        "/{transaction_id}",
        operation_id=f"show_{name}",
        description=f"Show {_AN[name]}, with headquarters' newest reply.",
        responses={200: answer(TransactionOutput, example, "With the newest reply."), **refusals(404)},
    )
    async def show(transaction_id: UUID) -> Response:
        return Document(transaction_document(await _existing(till, transaction_id, kind)))

    @router.post(
        "/{transaction_id}/resend",
        operation_id=f"resend_{name}",
        description=f"Send {_AN[name]} again that was rejected, with its customer as it is now.",
        responses={200: answer(TransactionOutput, example | {"status": "pending"}, "It is sent."), **refusals(404)},
    )
    async def resend(transaction_id: UUID) -> Response:
        view = await _existing(till, transaction_id, kind)
        return Document(transaction_document(await till.write(resend_transaction, view.transaction_id)))


_NAMES: Final = {TransactionKind.ORDER: "order", TransactionKind.CASH_AND_CARRY: "sale"}
_AN: Final = {"order": "an order", "sale": "a sale"}


def _page(views: Sequence[TransactionView], limit: int) -> dict[str, Any]:
    following = cursor(views[-1].transaction_id) if len(views) == limit else None
    return {"transactions": [transaction_document(view) for view in views], "next_cursor": following}


async def _existing(till: Till, transaction_id: UUID, kind: TransactionKind) -> TransactionView:
    """Raises: `NoSuchTransaction`, also for one of another kind."""
    view = await till.call(show_transaction, str(transaction_id))
    if view.transaction.kind is not kind:
        raise NoSuchTransaction(f"there is no {_NAMES[kind]} {transaction_id} in this channel")
    return view


async def _record(
    till: Till, request: Request, body: SaleInput, kind: TransactionKind, more: dict[str, Any]
) -> Response:
    key = headers.idempotency_key(request)
    digest = None if key is None else await headers.digest_of(request, _NAMES[kind])
    business_date: date | None = body.business_date
    record: Any = record_order if kind is TransactionKind.ORDER else record_sale
    with headers.operator_named(request, body.operator), unknown_customer_is_a_field():
        view = await till.write(
            record,
            lines=[Item(sku=line.sku, quantity=line.quantity, price=line.price) for line in body.lines],
            customer_id=body.customer_id,
            currency=body.currency,
            charges=_coded(body.charges),
            taxes=_coded(body.taxes),
            payments=[Payment(method=payment.method, amount=payment.amount) for payment in body.payments],
            attributes={name: value for name, value in body.attributes.items() if value is not None},
            business_date=business_date,
            operator=headers.operator(request, body.operator),
            transaction_id=key,
            digest=digest,
            **more,
        )
    location = f"{request.url.path}/{view.transaction_id}"
    return Document(transaction_document(view), 201, {"Location": location})


def _coded(amounts: Sequence[CodedAmountInput]) -> list[CodedAmount]:
    return [CodedAmount(code=amount.code, amount=amount.amount) for amount in amounts]
