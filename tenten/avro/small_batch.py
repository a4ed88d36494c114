"""A few records, one by one: setting up columns costs milliseconds, for which a single customer should not wait."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from tenten.avro.wire import UNKNOWN_KIND, AvroSchema, Json, Unreadable, WriterSchemas
from tenten.rules.limits import GUID

FEW_RECORDS: Final = 16
"""Up to here one by one is quicker."""


def is_guid(text: str) -> bool:
    """Whether this is a GUID as the contract has it: lowercase, with hyphens."""
    return GUID.fullmatch(text) is not None


def decode_few(
    reader: AvroSchema, keys: Sequence[bytes | None], values: Sequence[bytes], writers: WriterSchemas
) -> list[Json] | None:
    """The records of a few framed values, or None when one of them is not what it should be.

    Why not, and which, is for `tenten.avro.batches.decode_batch` to say; what is sound here is sound there.
    May block where a schema is looked up; raises what `writers` raises when that cannot be reached.
    """
    records = []
    for key, value in zip(keys, values, strict=True):
        try:
            record = writers.decode(value, reader)
        except Unreadable:
            return None
        if record[reader.key_field].encode() != key or not _is_sound(reader, record):
            return None
        records.append(record)
    return records


def _is_sound(reader: AvroSchema, record: Json) -> bool:
    guids, texts = _names(reader)
    return (
        all(is_guid(record[name]) for name in guids)
        and not any("\x00" in record[name] for name in texts)
        and record.get("kind") != UNKNOWN_KIND
    )


@cache
def _names(reader: AvroSchema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields that hold GUIDs, and those that hold other texts."""
    fields = reader.json["fields"]
    guids = [
        one["name"] for one in fields if isinstance(one["type"], dict) and one["type"].get("logicalType") == "uuid"
    ]
    return tuple(guids), tuple(one["name"] for one in fields if one["type"] == "string")
