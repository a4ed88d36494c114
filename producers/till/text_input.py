"""Customer input as plain texts by field name, from a command line or a file."""

from collections.abc import Mapping, Sequence
from typing import Final

from tenten.producers.till.customer_input import CustomerFields, NewAddress
from tenten.producers.till.customer_merge import clean
from tenten.schemas.customer_fields import plain_texts
from tenten.schemas.messages import CustomerType, ReceiptPreference

_ADDRESS_FIELDS: Final = {
    "address_purpose": "purpose",
    "address_name": "name",
    "street": "street",
    "city": "city",
    "county": "county",
    "state": "state",
    "postal_code": "postal_code",
    "country": "country",
}
_ATTRIBUTES: Final = "attributes/"

TEXT_FIELDS: Final = (
    *plain_texts(),
    "customer_type",
    "receipt_preference",
    "receipt_email",
    "email",
    "phone",
    *_ADDRESS_FIELDS,
    "affiliations",
)
"""The fields that can be given as plain text, in addition to `attributes/<name>` for a text attribute."""


def is_text_field(name: str) -> bool:
    """True if `fields_from_texts` accepts a field of that name."""
    return name in TEXT_FIELDS or (name.startswith(_ATTRIBUTES) and len(name) > len(_ATTRIBUTES))


def fields_from_texts(texts: Mapping[str, str]) -> CustomerFields:
    """The input that these texts give by field name: `street`, `city` and so on are parts of the primary address,
    affiliations are separated by semicolons and added.

    >>> fields_from_texts({"first_name": "Ada", "city": "London"})["address"].city
    'London'

    Raises: `ValueError`, a sentence for people, for an unknown field or choice.
    """
    unknown = [name for name in texts if not is_text_field(name)]
    if unknown:
        raise ValueError(
            f"unknown field {', '.join(unknown)}; the fields are {', '.join(TEXT_FIELDS)} and attributes/NAME"
        )
    fields = CustomerFields()
    names = (*plain_texts(), "receipt_email", "email", "phone")
    fields.update({name: text for name, text in texts.items() if name in names})  # type: ignore[typeddict-item]  # texts
    if "customer_type" in texts:
        fields["customer_type"] = CustomerType(_choice("customer_type", texts["customer_type"], list(CustomerType)))
    if "receipt_preference" in texts:
        choice = _choice("receipt_preference", texts["receipt_preference"], list(ReceiptPreference))
        fields["receipt_preference"] = ReceiptPreference(choice)
    address = {part: texts[name] for name, part in _ADDRESS_FIELDS.items() if name in texts}
    if address:
        fields["address"] = NewAddress(**address)
    if "affiliations" in texts:
        fields["add_affiliations"] = [name for part in texts["affiliations"].split(";") if (name := clean(part))]
    attributes = {
        name.removeprefix(_ATTRIBUTES): text or None for name, text in texts.items() if name.startswith(_ATTRIBUTES)
    }
    if attributes:
        fields["attributes"] = attributes
    return fields


def _choice(field: str, text: str, choices: Sequence[str]) -> str:
    choice = clean(text).upper()
    if choice not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices).lower()}")
    return choice
