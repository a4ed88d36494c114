"""Reuse the encoded bytes of a record's last field: an event and a snapshot both end with the customer.

The bytes are found without decoding: the fields before the last one are encoded again, and must equal the beginning of
the value.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from tenten.avro.wire import AvroSchema, WriterSchemas, avro_schema, encode, header_bytes


def encode_all_but_last(schema: AvroSchema, record: Mapping[str, Any], header: bytes) -> bytes:
    """The header and all fields of the record but the last one, which need not be present."""
    last = schema.json["fields"][-1]["name"]
    return encode(_without_last(schema), {name: value for name, value in record.items() if name != last}, header)


def last_field(schema: AvroSchema, record: Mapping[str, Any], value: bytes, writers: WriterSchemas) -> bytes | None:
    """The bytes of the last field of a framed value from which this record was decoded.

    None if the value was written with another schema, or the fields before are not in the shortest encoding.
    """
    header = value[: header_bytes(value)]
    if writers.find(header).fingerprint != schema.fingerprint:
        return None
    start = encode_all_but_last(schema, record, header)
    return value[len(start) :] if value.startswith(start) else None


@cache
def _without_last(schema: AvroSchema) -> AvroSchema:
    return avro_schema({**schema.json, "fields": schema.json["fields"][:-1]})
