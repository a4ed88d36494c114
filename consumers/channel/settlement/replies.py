"""Records of `channel-replies` and `transaction-replies` as replies that settle something.

A later release at headquarters may write outcomes, statuses and types of records that this one does not know. They are
passed, and their events stay unsettled: after its upgrade the channel sends them again and gets another reply.

Release 0.1.0 answered transactions in `channel-replies`, as a `Reply` with a status of the transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from structlog import get_logger

from tenten.avro.small_batch import decode_small_batch
from tenten.avro.wire import AvroSchema, Unreadable, WriterSchemas, contract, decode_body, header_bytes
from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.record_decoding import SMALL_BATCH_MAX, column_library_installed, decode_records
from tenten.kafka.assigned_reader import Records
from tenten.schemas.messages import (
    Outcome,
    Reply,
    TransactionReply,
    TransactionStatus,
    reply_from_avro,
    transaction_reply_from_avro,
    transaction_reply_of_0_1_0,
)
from tenten.schemas.topics import RECORD_BYTES_MAX, Topic

log = get_logger(__name__)

AnyReply: TypeAlias = Reply | TransactionReply

_NOT_SHOWN: Final = frozenset((Outcome.UNKNOWN,))
"""Outcomes that change nothing in a store."""

_STATUSES: Final = frozenset(TransactionStatus) - {TransactionStatus.PENDING}
"""The statuses that headquarters gives to a transaction."""


class ReplyDecoder:
    """Decodes a channel's replies on one topic, and logs each unknown outcome, status and type of record once."""

    def __init__(self, view: ChannelView, topic: Topic) -> None:
        self._contract = contract(topic.value)
        self._topic = topic.name
        self._channel_id = view.channel_id
        self._writers = view.writers
        self._logged_outcomes: set[str] = set()
        self._logged_types: set[str] = set()

    def decode(self, records: Records) -> tuple[list[tuple[int, AnyReply]], int | None]:
        """The channel's replies that settle something, with their offsets; the offset of its first unreadable record.

        The replies end before that record. May block where a schema is looked up. Raises: the errors of `writers` when
        schemas cannot be reached.
        """
        known = self._own_of_known_type(records)
        replies, unreadable_at = decode_replies(self._contract, known, self._writers)
        settling = [(offset, reply) for offset, reply in replies if _is_settling(reply)]
        if len(settling) < len(replies):
            self._log_unknown_outcomes(known, replies)
        return settling, unreadable_at

    def _own_of_known_type(self, records: Records) -> Records:
        """The channel's records that are replies or cannot be read."""
        rows = []
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            if key != self._channel_id.encode():
                continue
            name = _record_type(value, self._writers)
            if name is None or name == self._contract.name:
                rows.append(row)
            else:
                self._log_unknown_record_type(name)
        return records.rows(rows)

    def _log_unknown_outcomes(self, records: Records, replies: Sequence[tuple[int, AnyReply]]) -> None:
        values = dict(zip(records.offsets, records.values, strict=True))
        for offset, reply in replies:
            if isinstance(reply, TransactionReply):
                if not _is_settling(reply):
                    self._log_unknown_outcome(reply.status)
            elif reply.outcome is Outcome.UNKNOWN:
                self._log_unknown_outcome(_symbol(values[offset], self._writers))

    def _log_unknown_outcome(self, outcome: str) -> None:
        if outcome not in self._logged_outcomes:
            self._logged_outcomes.add(outcome)
            log.warning("unknown_outcome", channel=self._channel_id, outcome=outcome)

    def _log_unknown_record_type(self, name: str) -> None:
        if name not in self._logged_types:
            self._logged_types.add(name)
            log.warning("unknown_record_type", channel=self._channel_id, topic=self._topic, type=name)


def _is_settling(reply: AnyReply) -> bool:
    """Whether the reply has an outcome or a status that settles its event."""
    return reply.status in _STATUSES if isinstance(reply, TransactionReply) else reply.outcome not in _NOT_SHOWN


def decode_replies(
    reader: AvroSchema, records: Records, writers: WriterSchemas
) -> tuple[list[tuple[int, AnyReply]], int | None]:
    """The replies with their offsets, up to the first unreadable record, and the offset of that one.

    Small batches are decoded record by record, larger ones in columns where the column library is installed.
    """
    values = [value for value in records.values if value is not None]
    if len(values) == len(records.keys) <= SMALL_BATCH_MAX:
        decoded = decode_small_batch(reader, records.keys, values, writers)
        if decoded is not None:
            return list(zip(records.offsets, map(_FROM_AVRO[reader.name], decoded), strict=True)), None
    if column_library_installed():
        return _decode_in_columns(reader, records, writers)
    readable, unreadable = decode_records(reader, records.keys, records.values, writers, RECORD_BYTES_MAX)
    end = min(unreadable, default=len(records.keys))
    from_avro = _FROM_AVRO[reader.name]
    replies = [(records.offsets[row], from_avro(record)) for row, record in readable if row < end]
    return replies, records.offsets[end] if unreadable else None


def _decode_in_columns(
    reader: AvroSchema, records: Records, writers: WriterSchemas
) -> tuple[list[tuple[int, AnyReply]], int | None]:
    from tenten.avro.batches import decode_batch

    decoded = decode_batch(reader, records.keys, records.values, writers, RECORD_BYTES_MAX)
    end = decoded.unreadable[0].row if decoded.unreadable else len(records.keys)
    from_avro = _FROM_AVRO[reader.name]
    replies = [
        (records.offsets[row["row"]], from_avro(row)) for row in decoded.frame.iter_rows(named=True) if row["row"] < end
    ]
    return replies, records.offsets[end] if decoded.unreadable else None


def _from_reply(record: Mapping[str, Any]) -> AnyReply:
    return transaction_reply_of_0_1_0(record) if record["transaction_status"] else reply_from_avro(record)


_FROM_AVRO: Final[Mapping[str, Callable[[Mapping[str, Any]], AnyReply]]] = {
    "Reply": _from_reply,
    "TransactionReply": transaction_reply_from_avro,
}
"""By the name of the contract."""


def _record_type(value: bytes | None, writers: WriterSchemas) -> str | None:
    """The name of the writer's schema; None if it is unknown."""
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
