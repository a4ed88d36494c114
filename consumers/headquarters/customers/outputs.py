"""Encode the snapshots, replies and erasures of a synchronized batch as framed values.

The snapshot of a simple create reuses the event's bytes: an event ends with its customer, so the snapshot is a few
fields and that tail. The start of the tail is computed from the decoded columns and proved byte by byte; without
proof the customers are encoded from their columns, so a snapshot is always readable.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl

from tenten.avro.batches import EXACT
from tenten.avro.columns import encode_columns
from tenten.avro.primitives import text_bytes
from tenten.avro.wire import contract, encode, header_bytes
from tenten.consumers.headquarters.customers.individual_events import CustomerAfter
from tenten.consumers.headquarters.customers.synchronization_log import FIRST_JUDGEMENT
from tenten.consumers.headquarters.customers.synchronize import Synchronized
from tenten.consumers.headquarters.output import Output
from tenten.kafka.records import Headers
from tenten.schemas.messages import ROW, Customer, Erasure, Outcome, Reply, to_avro
from tenten.sql.customer_rows import StoredCustomer

_GUID_BYTES: Final = 37
"""A GUID in Avro: one byte of length and 36 characters."""


class BatchOutputs(NamedTuple):
    """The outputs of a batch, or of its simple creates."""

    snapshots: list[Output]
    replies: list[Output]
    erasures: Sequence[Output] = ()


def created_outputs(
    created: pl.DataFrame, values: Sequence[bytes | None], headers: Mapping[str, bytes]
) -> BatchOutputs:
    """Snapshots and replies of a batch's simple creates, given with number, version, time and input position.

    `values` are the batch's values as delivered, `headers` the framing by contract name.
    """
    return BatchOutputs(
        snapshots=_created_snapshots(created, values, headers["Customer"]),
        replies=_created_replies(created, headers["Reply"]),
    )


def snapshots(synchronized: Iterable[Synchronized[BatchOutputs]], headers: Mapping[str, bytes]) -> list[Output]:
    """The current snapshot of every customer that the batch touched, or a tombstone if it is erased.

    One record a customer: the last one, when several transactions of a batch touched the same customer.
    """
    outputs: dict[bytes, Output] = {}
    for transaction in synchronized:
        for output in [*transaction.created.snapshots, *_touched(transaction.touched, headers["Customer"])]:
            outputs[output.key] = output
    return list(outputs.values())


def _created_snapshots(created: pl.DataFrame, values: Sequence[bytes | None], header: bytes) -> list[Output]:
    if created.is_empty():
        return []
    tails = _tails(created, values) if created[EXACT].all() else None
    encoded = encode_columns(contract("Customer"), created, header, encoded={"customer": tails} if tails else {})
    return [
        Output(key=customer_id.encode(), value=value, headers=output_headers("Customer", event_id))
        for customer_id, value, event_id in zip(created["customer_id"], encoded, created["event_id"], strict=True)
    ]


def _tails(created: pl.DataFrame, values: Sequence[bytes | None]) -> list[bytes] | None:
    """The customer's bytes of each simple create, or None when one event is not in the shortest encoding.

    Avro permits longer encodings of a value (long varints, lists in blocks, sizes before blocks), never shorter ones.
    So the computed start is correct if nothing before it takes more than the minimum, which is checked byte by byte:
    a varint of at least n bytes has exactly n if its n-th byte is its last; the operator is compared as a whole; a list
    is one block if its first count is the full one; and as no path is empty or contains a NUL, the bytes that end both
    lists and select the customer (00 00 02) cannot occur earlier.
    """
    if created["changed"].explode().str.contains("^$|\x00").any():
        return None
    tails = []
    for row, name, channel_bytes, time_bytes, paths, start in created.select(ROW, "operator", *_lengths()).iter_rows():
        value = values[row] or b""
        body = header_bytes(value)
        kind = body + 2 * _GUID_BYTES + 1 + channel_bytes
        operator = kind + 1 + time_bytes
        operator_bytes = b"\x00" if name is None else b"\x02" + text_bytes(name)
        version = operator + len(operator_bytes)
        customer = body + start
        if not (
            value[body] == value[body + _GUID_BYTES] == _GUID_LENGTH
            and value[body + 2 * _GUID_BYTES] == 2 * channel_bytes < _VARINT_MORE
            and value[kind] == value[version] == 0
            and value[operator - 1] < _VARINT_MORE
            and value[operator:version] == operator_bytes
            and value[version + 1] == 2 * paths < _VARINT_MORE
            and value[customer - 3 : customer] == b"\x00\x00\x02"
        ):
            return None
        tails.append(value[customer:])
    return tails


_GUID_LENGTH: Final = 72
"""The zigzag of 36."""

_VARINT_MORE: Final = 128
"""A byte of a varint from this value on means that another byte follows."""


def _lengths() -> tuple[pl.Expr, ...]:
    """Of a simple create: bytes of the channel id, bytes of the time, number of paths, start of the customer."""
    channel_bytes = pl.col("channel_id").str.len_bytes()
    time_bytes = _zigzag_bytes(pl.col("occurred_at").to_physical())
    name_bytes = pl.col("operator").str.len_bytes()
    operator_bytes = 1 + (_zigzag_bytes(name_bytes) + name_bytes).fill_null(0)
    paths = pl.col("changed").list.len()
    element_bytes = pl.element().str.len_bytes()
    path_bytes = pl.col("changed").list.eval(_zigzag_bytes(element_bytes) + element_bytes).list.sum()
    start = (
        2 * _GUID_BYTES
        + 1  # the length of the channel id
        + channel_bytes
        + 1  # kind
        + time_bytes
        + operator_bytes
        + 1  # based_on_version: 0
        + pl.when(paths == 0).then(0).otherwise(1 + path_bytes)
        + 1  # end of changed
        + 1  # supersedes: none
        + 1  # the customer is not null
    )
    return channel_bytes, time_bytes.alias("time_bytes"), paths.alias("paths"), start.alias("start")


def _zigzag_bytes(number: pl.Expr) -> pl.Expr:
    """The number of bytes of a non-negative Avro long: 7 bits a byte, one bit for the sign."""
    doubled = number.cast(pl.Int64) * 2
    return pl.sum_horizontal(1, *((doubled >= 1 << bits).cast(pl.Int64) for bits in range(7, 63, 7)))


def _touched(touched: Mapping[str, CustomerAfter], header: bytes) -> list[Output]:
    return [snapshot_output(after.customer, after.event_id, header) for after in touched.values()]


def snapshot_output(stored: StoredCustomer, event_id: str, header: bytes) -> Output:
    """The current snapshot of a customer, or a tombstone if it is erased, caused by this event."""
    return Output(
        key=stored.customer_id.encode(),
        value=None if stored.erased else encode(contract("Customer"), to_avro(snapshot(stored)), header),
        headers=output_headers("Customer", event_id),
    )


def erasures(synchronized: Iterable[Synchronized[BatchOutputs]], headers: Mapping[str, bytes]) -> list[Output]:
    """A record for each erased customer that the batch touched: tombstones expire, these records do not."""
    return [
        erasure_output(after.customer, after.event_id, headers["Erasure"])
        for transaction in synchronized
        for after in transaction.touched.values()
        if after.customer.erased
    ]


def erasure_output(erased: StoredCustomer, event_id: str, header: bytes) -> Output:
    """The erasure of a customer, caused by this event."""
    assert erased.erased_at is not None
    erasure = Erasure(
        customer_id=erased.customer_id,
        account_number=erased.account_number,
        version=erased.version,
        legal_entity=erased.state.legal_entity,
        erased_at=erased.erased_at,
    )
    return Output(
        key=erased.customer_id.encode(),
        value=encode(contract("Erasure"), to_avro(erasure), header),
        headers=output_headers("Erasure", event_id),
    )


def snapshot(stored: StoredCustomer) -> Customer:
    """The snapshot of a customer that is not erased."""
    assert stored.account_number is not None  # only an erased customer may lack a number
    return Customer(
        customer_id=stored.customer_id,
        account_number=stored.account_number,
        version=stored.version,
        updated_at=stored.updated_at,
        customer=stored.state,
    )


def replies(synchronized: Iterable[Synchronized[BatchOutputs]], headers: Mapping[str, bytes]) -> list[Output]:
    """The reply to every event of the batch, keyed by channel."""
    outputs: list[Output] = []
    for transaction in synchronized:
        outputs.extend(transaction.created.replies)
        outputs.extend(_reply(reply, headers["Reply"]) for reply in transaction.replies)
    return outputs


def _created_replies(created: pl.DataFrame, header: bytes) -> list[Output]:
    """The replies to simple creates."""
    if created.is_empty():
        return []
    reply = created.with_columns(
        pl.lit(Outcome.SYNCHRONIZED.value).alias("outcome"),
        pl.col("updated_at").alias("answered_at"),
        pl.lit(FIRST_JUDGEMENT, dtype=pl.Int64).alias("judgement"),
    )
    encoded = encode_columns(contract("Reply"), reply, header)
    return [
        Output(key=channel_id.encode(), value=value, headers=output_headers("Reply", event_id))
        for channel_id, value, event_id in zip(created["channel_id"], encoded, created["event_id"], strict=True)
    ]


def _reply(reply: Reply, header: bytes) -> Output:
    value = encode(contract("Reply"), to_avro(reply), header)
    return Output(key=reply.channel_id.encode(), value=value, headers=output_headers("Reply", reply.event_id))


def output_headers(record: str, event_id: str) -> Headers:
    """The headers of a record: the id of the event that caused it, and its type."""
    return [("id", event_id.encode()), ("type", record.encode())]
