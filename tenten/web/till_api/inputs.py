"""The documents that clients send. Unknown members are refused."""

import re
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    create_model,
)

from tenten.rules.transaction_rules import LINES_MAX
from tenten.schemas.customer_fields import plain_texts
from tenten.schemas.messages import CustomerType, ReceiptPreference
from tenten.web.till_api.examples import CARD, CUSTOMER_INPUT, ORDER_INPUT, SALE_INPUT

MEMBERS_MAX: Final = 1_000

_AMOUNT: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_PATTERN: Final = f"^{_AMOUNT.pattern}$"


def _amount(value: Any) -> Decimal:
    """A number or its text, exactly. Raises: `ValueError`."""
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return Decimal(value)
    raise ValueError("Must be a decimal number, or a text such as '4.50'.")


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _iso_date(value: Any) -> date:
    """A date as text. Raises: `ValueError`."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueError("Must be a date such as 2026-03-02.")


def _attribute(value: Any) -> Any:
    """A value of an attribute. Raises: `ValueError`, one instead of one for each kind."""
    if value is None or isinstance(value, str | bool | int | Decimal):
        return value
    raise ValueError("Must be a text, a number, true, false or null.")


def _empty_for_null(value: Any) -> Any:
    return "" if value is None else value


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _PATTERN}, {"type": "number"}], "examples": ["4.50"]}),
]
Day = Annotated[
    date, BeforeValidator(_iso_date), WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-03-02"]})
]
Text = Annotated[
    StrictStr,
    BeforeValidator(_empty_for_null),
    WithJsonSchema({"type": ["string", "null"], "description": "null or an empty text removes it"}),
]
Exact = Annotated[Decimal, WithJsonSchema({"type": "number"})]
Attribute = Annotated[StrictStr | StrictBool | StrictInt | Exact | None, BeforeValidator(_attribute)]
Names = Annotated[list[StrictStr], Field(max_length=MEMBERS_MAX)]
Kind = Annotated[Literal["PHONE", "EMAIL"], BeforeValidator(_upper)]


def _strict(example: dict[str, Any] | None = None) -> ConfigDict:
    """No unknown members; the description has an example, and no defaults: what is left out is not changed."""

    def describe(schema: dict[str, Any]) -> None:
        for member in schema.get("properties", {}).values():
            member.pop("default", None)
        if example is not None:
            schema["examples"] = [example]

    return ConfigDict(extra="forbid", json_schema_extra=describe)


class Strict(BaseModel):
    """A document without unknown members."""

    model_config = _strict()


class AddressInput(Strict):
    """An address. In an edit, members that are left out stay as they are."""

    purpose: StrictStr | None = Field(None, examples=["HOME"])
    name: StrictStr | None = None
    street: StrictStr | None = None
    city: StrictStr | None = None
    county: StrictStr | None = None
    state: StrictStr | None = None
    postal_code: StrictStr | None = None
    country: StrictStr | None = Field(None, description="ISO 3166; default: that of the store's legal entity")


class CompleteAddress(Strict):
    """An address of the customer, complete, as the customer has it."""

    address_id: StrictStr
    purpose: StrictStr
    name: StrictStr = ""
    street: StrictStr = ""
    city: StrictStr = ""
    county: StrictStr = ""
    state: StrictStr = ""
    postal_code: StrictStr = ""
    country: StrictStr
    updated_at: datetime | None = Field(None, description="is not read")


class ContactInput(Strict):
    """A further phone number or e-mail address."""

    kind: Kind
    value: StrictStr
    marketing_consent: StrictBool = False
    description: StrictStr = ""


class CompleteContact(ContactInput):
    """A contact of the customer, complete, as the customer has it."""

    contact_id: StrictStr


_OPERATOR: Final = Field(None, description="the person who makes the change; default: the header Tenten-Operator")


class CustomerMembers(Strict):
    """The fields of a customer that are not plain texts."""

    model_config = _strict(CUSTOMER_INPUT)

    operator: StrictStr | None = _OPERATOR
    customer_type: Annotated[CustomerType, BeforeValidator(_upper)] | None = None
    receipt_preference: Annotated[ReceiptPreference, BeforeValidator(_upper)] | None = None
    receipt_email: Text = ""
    email: Text = Field("", description="the primary e-mail address; null or an empty text removes it")
    phone: Text = Field("", description="the primary phone number; null or an empty text removes it")
    address: AddressInput | None = Field(None, description="the primary address")
    address_books: Names = []
    add_addresses: list[AddressInput] = Field([], max_length=MEMBERS_MAX)
    put_addresses: list[CompleteAddress] = Field([], max_length=MEMBERS_MAX)
    remove_addresses: Names = []
    add_contacts: list[ContactInput] = Field([], max_length=MEMBERS_MAX)
    put_contacts: list[CompleteContact] = Field([], max_length=MEMBERS_MAX)
    remove_contacts: Names = []
    primary_address: Text = ""
    primary_phone: Text = ""
    primary_email: Text = ""
    add_affiliations: Names = []
    remove_affiliations: Names = []
    attributes: dict[StrictStr, Attribute] = Field({}, description="by name; null removes")


_texts: Any = dict.fromkeys(plain_texts(), (Text, ""))

CustomerInput: type[CustomerMembers] = create_model(
    "CustomerInput",
    __base__=CustomerMembers,
    __doc__="Fields of a customer; those that are left out stay as they are, or get the store's defaults.",
    **_texts,
)


class ItemInput(Strict):
    """An article that is sold, or returned where the quantity is negative."""

    sku: StrictStr
    quantity: Amount
    price: Amount = Field(description="of one, without taxes")


class CodedAmountInput(Strict):
    """A charge or a tax."""

    code: StrictStr
    amount: Amount


class PaymentInput(Strict):
    """The amount paid with one method."""

    method: StrictStr
    amount: Amount


class SaleInput(Strict):
    """A cash-and-carry sale. Without payments the total is paid in cash."""

    model_config = _strict(SALE_INPUT)

    lines: list[ItemInput] = Field(max_length=LINES_MAX)
    customer_id: StrictStr | None = None
    currency: StrictStr | None = Field(None, description="ISO 4217; default: that of the store's legal entity")
    charges: list[CodedAmountInput] = Field([], max_length=LINES_MAX)
    taxes: list[CodedAmountInput] = Field([], max_length=LINES_MAX)
    payments: list[PaymentInput] = Field([], max_length=LINES_MAX)
    attributes: dict[StrictStr, Attribute] = Field({}, description="as the legal entity defines them, by name")
    business_date: Day | None = Field(None, description="default: the store's business day")
    operator: StrictStr | None = _OPERATOR


class OrderInput(SaleInput):
    """An order, which becomes a sales order as soon as headquarters knows its customer."""

    model_config = _strict(ORDER_INPUT)

    deliver_to: StrictStr | None = Field(None, description="the id of one of the customer's addresses")
    delivery_mode: StrictStr = ""


class CardInput(Strict):
    """A loyalty card for a customer."""

    model_config = _strict(CARD)

    card_number: StrictStr
    keep: StrictBool = Field(False, description="reserve it for a customer without an account number")
    operator: StrictStr | None = _OPERATOR


class ChangeInput(Strict):
    """Who makes a change."""

    model_config = _strict({"operator": "emma"})

    operator: StrictStr | None = _OPERATOR
