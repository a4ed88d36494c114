"""Random values of an Avro schema for property tests."""

from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

SHORT_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
TEXTS = SHORT_TEXTS | st.sampled_from(["x" * 63, "x" * 64, "ü" * 32, "y" * 200, "z" * 9_000])
TIMES = st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- made aware by `timezones`


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as fastavro takes and gives them."""
    if isinstance(schema, list):
        return st.none() | values(schema[1])
    kind = schema["type"] if isinstance(schema, dict) else schema
    logical_type = schema.get("logicalType") if isinstance(schema, dict) else None
    if kind == "record":
        return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=2)
    if kind == "enum":
        symbols = [symbol for symbol in schema["symbols"] if symbol != "UNKNOWN"]
        return st.sampled_from([*symbols[:2], symbols[-1]])
    logical: dict[str, st.SearchStrategy[Any]] = {
        "uuid": st.uuids().map(str),
        "date": st.dates(date(1901, 1, 1), date(2200, 1, 1)),
        "timestamp-micros": TIMES,
        "decimal": st.decimals(-(10**15), 10**15, places=6),
    }
    primitive: dict[str, st.SearchStrategy[Any]] = {
        "string": TEXTS,
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "boolean": st.booleans(),
        "bytes": st.binary(max_size=4),
    }
    return logical[logical_type] if logical_type else primitive[kind]
