"""What a synchronized batch sends: snapshots, replies, dead letters, as framed values.

The snapshot of a plain event holds the event's own bytes: an event ends with its customer, so the snapshot is a few
fields and
that tail. Where the tail starts is computed from the decoded columns, and the result is proved by decoding it again:
what
does not read back equal is encoded record by record instead, so a snapshot that no channel can read is never written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import polars as pl

from commerce.customer_rows import StoredCustomer
from commerce.kafka import Headers
from consumers.headquarters.synchronize import Current, Synchronized
from schemas.batches import EXACT, ROW, decode_batch, join_columns, text_bytes, zigzag
from schemas.records import Customer, Outcome, Reply, to_avro
from schemas.wire import WriterSchemas, contract, encode, header_bytes

_GUID_BYTES: Final = 37
"""A GUID in Avro: one byte of length and 36 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One record to send."""

    key: bytes
    value: bytes | None
    headers: Headers


def snapshots(
    synchronized: Iterable[Synchronized], values: Sequence[bytes | None], headers: Mapping[str, bytes]
) -> list[Output]:
    """The current snapshot of every customer that the batch concerned, a tombstone for an erased one.

    `values` are the batch's values as delivered, `headers` the framing by contract name. One record a customer: where
    the halves of a refused batch concern the same one, the later stands.
    """
    outputs: dict[bytes, Output] = {}
    for one in synchronized:
        for output in [
            *_created(one.created, values, headers["Customer"]),
            *_current(one.current, headers["Customer"]),
        ]:
            outputs[output.key] = output
    return list(outputs.values())


def _created(created: pl.DataFrame, values: Sequence[bytes | None], header: bytes) -> list[Output]:
    if created.is_empty():
        return []
    keys = [customer_id.encode() for customer_id in created["customer_id"]]
    encoded = _spliced(created, values, header) if created[EXACT].all() else None
    if encoded is None or not _reads_back(created, keys, encoded):
        encoded = [encode(contract("Customer"), row, header) for row in created.select(_SNAPSHOT).iter_rows(named=True)]
    return [
        Output(key=key, value=value, headers=_headers("Customer", event_id))
        for key, value, event_id in zip(keys, encoded, created["event_id"], strict=True)
    ]


_SNAPSHOT: Final = ("customer_id", "account_number", "version", "updated_at", "customer")


def _spliced(created: pl.DataFrame, values: Sequence[bytes | None], header: bytes) -> list[bytes]:
    """The snapshots of new customers, each with the tail of its event."""
    starts = created.select(_customer_start()).to_series()
    tails = []
    for row, start in zip(created[ROW], starts, strict=True):
        value = values[row] or b""
        tails.append(value[header_bytes(value) + start :])
    return join_columns(
        header,
        map(text_bytes, created["customer_id"]),
        map(text_bytes, created["account_number"]),
        repeat(zigzag(1), created.height),
        map(zigzag, created["updated_at"].to_physical()),
        tails,
    )


def _customer_start() -> pl.Expr:
    """Where the customer starts in the Avro bytes of a plain event: after the fields before it and the union's
    branch.
    """
    changed = pl.col("changed")
    path_bytes = changed.list.eval(_text_bytes(pl.element())).list.sum()
    list_bytes = pl.when(changed.list.len() == 0).then(1).otherwise(_zigzag_bytes(changed.list.len()) + path_bytes + 1)
    return (
        2 * _GUID_BYTES
        + _text_bytes(pl.col("channel_id"))
        + 1  # kind
        + _zigzag_bytes(pl.col("occurred_at").to_physical())
        + _zigzag_bytes(pl.col("based_on_version"))
        + list_bytes
        + 1  # supersedes: none
        + 1  # the customer is not null
    )


def _text_bytes(text: pl.Expr) -> pl.Expr:
    return _zigzag_bytes(text.str.len_bytes()) + text.str.len_bytes()


def _zigzag_bytes(number: pl.Expr) -> pl.Expr:
    """How many bytes an Avro long takes, for numbers from 0 on; 7 bits a byte, one of them for the sign."""
    doubled = number.cast(pl.Int64) * 2
    return pl.sum_horizontal(1, *((doubled >= 1 << bits).cast(pl.Int64) for bits in range(7, 63, 7)))


def _reads_back(created: pl.DataFrame, keys: Sequence[bytes], encoded: Sequence[bytes]) -> bool:
    """Whether what is about to be written is what is meant, by the channels' own way of reading it."""
    decoded = decode_batch(contract("Customer"), keys, encoded, _OURS, value_bytes_max=max(map(len, encoded)))
    return decoded.frame.select(_SNAPSHOT).equals(created.select(_SNAPSHOT))


_OURS: Final = WriterSchemas(by_id=lambda _: contract("Customer").json)


def _current(current: Mapping[str, Current], header: bytes) -> list[Output]:
    return [
        Output(
            key=customer_id.encode(),
            value=None
            if one.customer.erased
            else encode(contract("Customer"), to_avro(snapshot(one.customer)), header),
            headers=_headers("Customer", one.event_id),
        )
        for customer_id, one in current.items()
    ]


def snapshot(stored: StoredCustomer) -> Customer:
    """A customer that is not erased as its snapshot."""
    assert stored.account_number is not None  # headquarters numbers every customer it does not erase
    return Customer(
        customer_id=stored.customer_id,
        account_number=stored.account_number,
        version=stored.version,
        updated_at=stored.updated_at,
        customer=stored.state,
    )


def replies(synchronized: Iterable[Synchronized], headers: Mapping[str, bytes]) -> list[Output]:
    """The answer to every event of the batch, keyed by channel."""
    outputs: list[Output] = []
    for one in synchronized:
        outputs.extend(_plain_replies(one.created, headers["Reply"]))
        outputs.extend(_reply(reply, headers["Reply"]) for reply in one.replies)
    return outputs


def _plain_replies(created: pl.DataFrame, header: bytes) -> list[Output]:
    """The answers to plain events, put together field by field in the order of `Reply`."""
    if created.is_empty():
        return []
    count = created.height
    encoded = join_columns(
        header,
        map(text_bytes, created["channel_id"]),
        map(text_bytes, created["event_id"]),
        map(text_bytes, created["customer_id"]),
        repeat(zigzag(list(Outcome).index(Outcome.SYNCHRONIZED)), count),
        repeat(b"\x00", count),  # no reasons
        (b"\x02" + text_bytes(number) for number in created["account_number"]),
        repeat(b"\x02" + zigzag(1), count),
        map(zigzag, created["updated_at"].to_physical()),
    )
    return [
        Output(key=channel_id.encode(), value=value, headers=_headers("Reply", event_id))
        for channel_id, value, event_id in zip(created["channel_id"], encoded, created["event_id"], strict=True)
    ]


def _reply(reply: Reply, header: bytes) -> Output:
    value = encode(contract("Reply"), to_avro(reply), header)
    return Output(key=reply.channel_id.encode(), value=value, headers=_headers("Reply", reply.event_id))


def _headers(record: str, event_id: str) -> Headers:
    """The headers of a record: the event that made headquarters write it, and what it is."""
    return [("id", event_id.encode()), ("type", record.encode())]
