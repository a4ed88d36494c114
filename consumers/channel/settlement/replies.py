"""Records of `channel-replies` as replies that settle something.

A later release at headquarters may write outcomes and types of records that this one does not know. They are passed,
and their events stay unsettled: after its upgrade the channel sends them again and gets another reply.
"""

from typing import Final

from structlog import get_logger

from tenten.avro.small_batch import FEW_RECORDS, decode_few
from tenten.avro.wire import Unreadable, WriterSchemas, contract, decode_body, header_bytes
from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.record_decoding import column_library_installed, decode_records
from tenten.kafka.assigned_reader import Records
from tenten.schemas.messages import Outcome, Reply, reply_from_avro
from tenten.schemas.topics import RECORD_BYTES_MAX

log = get_logger(__name__)

_NOT_SETTLING: Final = frozenset((Outcome.HELD, Outcome.UNREADABLE, Outcome.UNKNOWN))
"""Outcomes that leave an event unsettled."""


class ReplyDecoder:
    """Decodes a channel's replies, and logs each unknown outcome and type of record once."""

    def __init__(self, view: ChannelView) -> None:
        self._channel_id = view.channel_id
        self._writers = view.writers
        self._logged_outcomes: set[str] = set()
        self._logged_types: set[str] = set()

    def decode(self, records: Records) -> tuple[list[tuple[int, Reply]], int | None]:
        """The channel's replies that settle something, with their offsets; the offset of its first unreadable record.

        The replies end before that record. May block where a schema is looked up. Raises: the errors of `writers` when
        schemas cannot be reached.
        """
        known = self._own_of_known_type(records)
        replies, unreadable_at = decode_replies(known, self._writers)
        if any(reply.outcome is Outcome.UNKNOWN for _, reply in replies):
            values = dict(zip(known.offsets, known.values, strict=True))
            for offset, reply in replies:
                if reply.outcome is Outcome.UNKNOWN:
                    self._log_unknown_outcome(_symbol(values[offset], self._writers))
        settling = [(offset, reply) for offset, reply in replies if reply.outcome not in _NOT_SETTLING]
        return settling, unreadable_at

    def _own_of_known_type(self, records: Records) -> Records:
        """The channel's records that are replies or cannot be read."""
        rows = []
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            if key != self._channel_id.encode():
                continue
            name = _record_type(value, self._writers)
            if name is None or name == contract("Reply").name:
                rows.append(row)
            else:
                self._log_unknown_record_type(name)
        return records.rows(rows)

    def _log_unknown_outcome(self, outcome: str) -> None:
        if outcome not in self._logged_outcomes:
            self._logged_outcomes.add(outcome)
            log.warning("unknown_outcome", channel=self._channel_id, outcome=outcome)

    def _log_unknown_record_type(self, name: str) -> None:
        if name not in self._logged_types:
            self._logged_types.add(name)
            log.warning("unknown_record_type", channel=self._channel_id, type=name)


def decode_replies(records: Records, writers: WriterSchemas) -> tuple[list[tuple[int, Reply]], int | None]:
    """The replies with their offsets, up to the first unreadable record, and the offset of that one.

    Small batches are decoded record by record, larger ones in columns where the column library is installed.
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


def _record_type(value: bytes | None, writers: WriterSchemas) -> str | None:
    """The name of the writer's schema; None when it cannot be told."""
    if value is None:
        return None
    try:
        return writers.find(value[: header_bytes(value)]).name
    except Unreadable:
        return None


def _symbol(value: bytes | None, writers: WriterSchemas) -> str:
    """The outcome as it was written, by the writer's own schema."""
    assert value is not None  # it was decoded before
    start = header_bytes(value)
    writer = writers.find(value[:start])
    return str(decode_body(value[start:], writer, writer)["outcome"])
