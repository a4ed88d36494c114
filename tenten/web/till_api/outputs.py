"""The documents that clients get. They describe the answers; answers are not validated by them."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from tenten.producers.till.customer_views import CustomerStatus
from tenten.producers.till.loyalty import CardStatus
from tenten.schemas.messages import TransactionStatus
from tenten.web.serving.problems import PROBLEM, title_of
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


def answer(model: type[BaseModel], example: dict[str, Any], description: str, *headers: str) -> dict[str, Any]:
    """How an answer is described, which has these headers."""
    return {
        "model": model,
        "description": description,
        "content": {"application/json": {"example": example}},
        **_with_headers(headers),
    }


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How the refusals with these statuses are described, and those that every operation may answer."""
    return {status: _refusal(status) for status in sorted({*statuses, *ALWAYS})}


def _refusal(status: int) -> dict[str, Any]:
    description, detail = _REFUSALS[status]
    example = {"type": "about:blank", "title": title_of(status), "status": status, "detail": detail}
    if status == 422:
        example |= {"errors": [examples.REASON]}
    schema = {"$ref": "#/components/schemas/ProblemOutput"}
    return {
        "description": description,
        "content": {PROBLEM: {"schema": schema, "example": example}},
        **_with_headers(["Retry-After"] if status in _LATER else []),
    }


def _with_headers(names: Iterable[str]) -> dict[str, Any]:
    headers = {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names}
    return {"headers": headers} if headers else {}


_HEADERS: Final = {
    "ETag": "changes with the fields of the customer",
    "Location": "the path of what was created",
    "Preference-Applied": "the preferred time, where one was sent",
    "Retry-After": "seconds",
}

ALWAYS: Final = (400, 401, 408, 413, 421, 422, 429, 500, 503)
"""What every operation may answer."""

_LATER: Final = (429, 503)
_REFUSALS: Final = {
    400: ("The request is not valid HTTP or JSON.", "The body is not valid JSON in UTF-8."),
    401: ("The token is missing or wrong.", "Send the token: Authorization: Bearer TOKEN."),
    404: ("It does not exist in this store.", "There is no sale with this id in this store."),
    408: ("The body did not arrive in time.", "The body did not arrive in time."),
    409: ("The idempotency key was used with another content.", "This id is that of another order or sale."),
    412: ("The customer was changed meanwhile.", "This customer was changed meanwhile: read it again."),
    413: ("The body is too large.", "The body has more than 1048576 bytes."),
    415: ("The body is not said to be JSON.", "Send Content-Type: application/json."),
    421: ("The Host header is not a name of this server.", "This server has another name."),
    422: (
        "The content breaks rules, or is not as described; `errors` names every field.",
        "Nothing was written: see `errors`.",
    ),
    429: ("Too many requests: try again after `Retry-After` seconds.", "More than 100 requests a second."),
    500: ("A bug of this program; its log says where.", "The request failed; the log of the process says why."),
    503: (
        "The database does not answer in time, or too many clients wait or follow: repeat after `Retry-After` seconds.",
        "Too many requests wait to write: nothing was written.",
    ),
}
"""By status: when it is answered, and the detail of an example."""
