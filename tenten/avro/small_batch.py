"""Row-wise decoder for small batches, where building columns would dominate the latency."""

from collections.abc import Sequence
from functools import cache

from tenten.avro.wire import UNKNOWN_KIND, AvroSchema, Json, Unreadable, WriterSchemas
from tenten.rules.limits import is_guid


def decode_small_batch(
    reader: AvroSchema, keys: Sequence[bytes | None], values: Sequence[bytes], writers: WriterSchemas
) -> list[Json] | None:
    """The records of the framed values, or None if one of them is unreadable: `tenten.avro.batches.decode_batch` finds
    out which and why, and accepts every record that is accepted here.

    May block while a schema is looked up. Raises: as `writers` does when schemas cannot be looked up.
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
    """The names of the fields that hold GUIDs, and of those that hold other texts."""
    types = {field["name"]: field["type"] for field in reader.json["fields"]}
    guids = [name for name, kind in types.items() if isinstance(kind, dict) and kind.get("logicalType") == "uuid"]
    return tuple(guids), tuple(name for name, kind in types.items() if kind == "string")
