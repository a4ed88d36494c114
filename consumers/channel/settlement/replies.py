"""Records of `channel-replies` as replies: larger batches in columns, where the column library is installed."""

from typing import Final

from tenten.avro.small_batch import FEW_RECORDS, decode_few
from tenten.avro.wire import WriterSchemas, contract
from tenten.consumers.channel.record_decoding import column_library_installed, decode_records
from tenten.kafka.assigned_reader import Records
from tenten.schemas.messages import Reply, reply_from_avro
from tenten.schemas.topics import RECORD_BYTES_MAX


def decode_replies(records: Records, writers: WriterSchemas) -> tuple[list[tuple[int, Reply]], int | None]:
    """The replies with their offsets, up to the first unreadable one, and the offset of that one.

    May block where a schema is looked up. Raises: the errors of `writers` when schemas cannot be reached.
    """
    values = [value for value in records.values if value is not None]
    if len(values) == len(records.keys) <= FEW_RECORDS:
        decoded = decode_few(contract("Reply"), records.keys, values, writers)
        if decoded is not None:
            return list(zip(records.offsets, map(reply_from_avro, decoded), strict=True)), None
    if column_library_installed():
        return _decode_in_columns(records, writers)
    readable, unreadable = decode_records(contract("Reply"), records.keys, records.values, writers, RECORD_BYTES_MAX)
    end = min(unreadable, default=len(records.keys))
    replies = [(records.offsets[row], reply_from_avro(record)) for row, record in readable if row < end]
    return replies, records.offsets[end] if unreadable else None


def _decode_in_columns(records: Records, writers: WriterSchemas) -> tuple[list[tuple[int, Reply]], int | None]:
    from tenten.avro.batches import decode_batch

    decoded = decode_batch(contract("Reply"), records.keys, records.values, writers, RECORD_BYTES_MAX)
    end = decoded.unreadable[0].row if decoded.unreadable else len(records.keys)
    replies = [
        (records.offsets[row["row"]], reply_from_avro({name: row[name] for name in _REPLY}))
        for row in decoded.frame.iter_rows(named=True)
        if row["row"] < end
    ]
    return replies, records.offsets[end] if decoded.unreadable else None


_REPLY: Final = tuple(field["name"] for field in contract("Reply").json["fields"])
