"""Column mapping for imports: named by the user, else guessed from common column names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from tenten.producers.till.text_input import TEXT_FIELDS, is_text_field
from tenten.runtime.errors import ImportRejected
from tenten.schemas.customer_fields import scalar_fields

KEY: Final = "key"

_COMMON_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    KEY: ("customerkey", "externalkey", "externalid"),
    **{field.name: field.import_names for field in scalar_fields() if field.import_names},
    "email": ("email", "emailaddress", "mail", "primaryemail", "primarycontactemail"),
    "phone": (
        "phone",
        "phonenumber",
        "telephone",
        "telephonenumber",
        "primaryphone",
        "primarycontactphone",
        "mobile",
        "mobilephone",
        "mobilenumber",
        "cellphone",
    ),
    "address_purpose": ("addresspurpose",),
    "address_name": ("addressname",),
    "street": ("street", "streetaddress", "address", "addressline", "addressline1", "address1", "addressstreet"),
    "city": ("city", "town", "addresscity", "locality"),
    "county": ("county", "addresscounty"),
    "state": ("state", "statecode", "stateprovince", "stateprovincecode", "province", "provincecode", "addressstate"),
    "postal_code": ("postalcode", "postcode", "zip", "zipcode", "addresszipcode", "addresspostalcode"),
    "country": (
        "country",
        "countrycode",
        "countryregion",
        "countryregioncode",
        "countryregionid",
        "addresscountryregionid",
    ),
    "affiliations": ("affiliations", "affiliation"),
}
"""Normalised to lower-case letters and digits: `First Name`, `first_name` and `FirstName` are the same."""

_FIELD_OF: Final = {name: field for field, names in _COMMON_NAMES.items() for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The use of each column of a file."""

    fields: Mapping[str, str]
    """The field of each used column."""
    key: str | None
    """The column that identifies customers; None: the whole line does."""


def choose_columns(columns: Iterable[str], mapping: Mapping[str, str], key: str | None) -> Columns:
    """The use of these columns; of two columns that look like the same field, the first is used.

    `mapping` is the field of each named column, empty to ignore the column, and overrides guesses.
    Raises: `ImportRejected` for an unknown column or field, and when no column is usable.
    """
    present = list(columns)
    for column in (*mapping, *([key] if key is not None else ())):
        if column not in present:
            raise ImportRejected(
                f"there is no column {column}{_suggestion(column, present)}; the columns are {', '.join(present)}"
            )
    check_mapping(mapping)
    fields = {column: field for column, field in mapping.items() if field}
    guessed_key = key
    for column in present:
        field = guess(column)
        if field is None or column in mapping or column == key:
            continue
        if field == KEY:
            guessed_key = guessed_key or column
        elif field not in fields.values():
            fields[column] = field
    if not fields:
        raise ImportRejected(
            f"no column has a known name: map columns with --map COLUMN=field; the fields are {', '.join(TEXT_FIELDS)}"
        )
    return Columns(fields=fields, key=guessed_key)


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Check that every field of the mapping exists, and is mapped once. Raises: `ImportRejected`."""
    for column, field in mapping.items():
        if field and not is_text_field(field):
            raise ImportRejected(
                f"--map {column}={field}: unknown field {field}{_suggestion(field, TEXT_FIELDS)}; the fields are "
                f"{', '.join(TEXT_FIELDS)} and attributes/NAME"
            )
    fields = [field for field in mapping.values() if field]
    repeated = sorted({field for field in fields if fields.count(field) > 1})
    if repeated:
        raise ImportRejected(f"more than one column is mapped to {', '.join(repeated)}: map only one")


def guess(column: str) -> str | None:
    """The field, or `key`, that a column of this name commonly has; None for an unknown name."""
    return _FIELD_OF.get("".join(filter(str.isalnum, column)).lower())


def _suggestion(word: str, possible: Iterable[str]) -> str:
    matches = get_close_matches(word, list(possible), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
