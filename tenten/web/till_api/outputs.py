"""The documents that clients get. They describe the answers; answers are not validated by them."""

from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from tenten.producers.till.customer_views import CustomerStatus
from tenten.producers.till.loyalty import CardStatus
from tenten.schemas.messages import TransactionStatus
from tenten.web.till_api import examples


class ReasonOutput(BaseModel):
    """Why something was refused, or waits."""

    field: str
    code: str
    text: str


class ProblemOutput(BaseModel):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ReasonOutput] = []


class CustomerOutput(BaseModel):
    """A customer as the store shows it, with all of its fields."""

    customer_id: UUID
    account_number: str | None
    reference: str
    status: CustomerStatus
    reasons: list[ReasonOutput]
    unsettled: int
    version: int
    updated_at: datetime
    display_name: str
    email: str | None
    phone: str | None
    legal_entity: str
    customer_type: str
    first_name: str
    last_name: str
    addresses: list[dict[str, Any]]
    contacts: list[dict[str, Any]]
    attributes: list[dict[str, Any]]


class CustomersOutput(BaseModel):
    """A page of customers."""

    customers: list[CustomerOutput]
    next_cursor: str | None


class LineOutput(BaseModel):
    """A line of an order or a sale; decimals are text."""

    sku: str
    quantity: str
    price: str
    amount: str


class CodedAmountOutput(BaseModel):
    """A charge or a tax."""

    code: str
    amount: str


class PaymentOutput(BaseModel):
    """A payment."""

    method: str
    amount: str


class CustomerNameOutput(BaseModel):
    """The customer of an order or a sale."""

    account_number: str | None
    display_name: str


class TransactionOutput(BaseModel):
    """An order or a sale."""

    transaction_id: UUID
    reference: str
    status: TransactionStatus
    sales_order: str | None
    reasons: list[ReasonOutput]
    kind: str
    business_date: date
    customer_id: UUID | None
    customer: CustomerNameOutput | None
    currency: str
    total: str
    lines: list[LineOutput]
    charges: list[CodedAmountOutput]
    taxes: list[CodedAmountOutput]
    payments: list[PaymentOutput]
    delivery_mode: str
    delivery_address: dict[str, Any] | None
    attributes: list[dict[str, Any]]
    end_of_day_id: UUID | None
    operator: str | None
    occurred_at: datetime
    updated_at: datetime


class TransactionsOutput(BaseModel):
    """A page of orders or sales, the newest first."""

    transactions: list[TransactionOutput]
    next_cursor: str | None


class ControlTotalOutput(BaseModel):
    """The amount paid with one method in one currency."""

    currency: str
    payment_method: str
    amount: str


class EndOfDayOutput(BaseModel):
    """An end of day: the sales of a business date that no earlier one lists."""

    end_of_day_id: UUID
    business_date: date
    status: TransactionStatus
    transactions: int
    control_totals: list[ControlTotalOutput]
    reasons: list[ReasonOutput]
    operator: str | None
    closed_at: datetime
    updated_at: datetime


class DayOutput(BaseModel):
    """The ends of day of a business date, the newest first; none while it is open."""

    business_date: date
    ends_of_day: list[EndOfDayOutput]


class EndsOfDayOutput(BaseModel):
    """A page of ends of day, the newest first."""

    ends_of_day: list[EndOfDayOutput]
    next_cursor: str | None


class CardOutput(BaseModel):
    """A loyalty card."""

    card_number: str
    customer_id: UUID
    status: CardStatus
    reasons: list[ReasonOutput]


def answer(model: type[BaseModel], example: dict[str, Any], description: str) -> dict[str, Any]:
    """How an answer is described."""
    return {
        "model": model,
        "description": description,
        "content": {"application/json": {"example": example}},
    }


_PROBLEM: Final[dict[str, Any]] = {
    "content": {
        "application/problem+json": {
            "schema": {"$ref": "#/components/schemas/ProblemOutput"},
            "example": examples.PROBLEM,
        }
    }
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How the refusals with these statuses are described, and those that every operation may answer."""
    return {status: _PROBLEM | {"description": _REFUSALS[status]} for status in sorted({*statuses, *_ALWAYS})}


_ALWAYS: Final = (400, 401, 408, 413, 422, 429, 500, 503)
_REFUSALS: Final = {
    400: "The request is not valid HTTP or JSON.",
    401: "The token is missing or wrong.",
    404: "It does not exist in this store.",
    408: "The body did not arrive in time.",
    409: "The idempotency key was used with another content.",
    412: "The customer was changed meanwhile.",
    413: "The body is too large.",
    422: "The content breaks rules, or is not as described; `errors` names every field.",
    429: "Too many requests: try again after `Retry-After` seconds.",
    500: "A bug of this program; its log says where.",
    503: "The store's database does not answer: try again after `Retry-After` seconds.",
}
