"""What a synchronized batch sends: snapshots, replies, dead letters, as framed values.

The snapshot of a plain event holds the event's own bytes: an event ends with its customer, so the snapshot is a few
fields and that tail. Where the tail starts is computed from the decoded columns and proved byte by byte; where that
fails, the snapshots are encoded record by record, so one that no channel can read is never written.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import polars as pl

from tenten.avro.batches import EXACT, join_columns, text_bytes, zigzag
from tenten.avro.wire import contract, encode, header_bytes
from tenten.consumers.headquarters.customers.transaction import Current, Synchronized
from tenten.kafka.client import Headers
from tenten.schemas.messages import ROW, Customer, Outcome, Reply, to_avro
from tenten.sql.customer_rows import StoredCustomer

_GUID_BYTES: Final = 37
"""A GUID in Avro: one byte of length and 36 characters."""


class Output(NamedTuple):
    """One record to send."""

    key: bytes
    value: bytes | None
    headers: Headers


class Created(NamedTuple):
    """What goes out about the new customers of plain events."""

    snapshots: list[Output]
    replies: list[Output]


def created_outputs(created: pl.DataFrame, values: Sequence[bytes | None], headers: Mapping[str, bytes]) -> Created:
    """Snapshots and replies of new customers: a batch's plain events with number, version and time.

    `values` are the batch's values as delivered, `headers` the framing by contract name.
    """
    return Created(
        snapshots=_created(created, values, headers["Customer"]), replies=_plain_replies(created, headers["Reply"])
    )


def snapshots(synchronized: Iterable[Synchronized[Created]], headers: Mapping[str, bytes]) -> list[Output]:
    """The current snapshot of every customer that the batch concerned, a tombstone for an erased one.

    One record a customer: where the halves of a refused batch concern the same one, the later stands.
    """
    outputs: dict[bytes, Output] = {}
    for one in synchronized:
        for output in [*one.created.snapshots, *_current(one.current, headers["Customer"])]:
            outputs[output.key] = output
    return list(outputs.values())


def _created(created: pl.DataFrame, values: Sequence[bytes | None], header: bytes) -> list[Output]:
    if created.is_empty():
        return []
    tails = _tails(created, values) if created[EXACT].all() else None
    if tails is None:
        encoded = [encode(contract("Customer"), row, header) for row in created.select(_SNAPSHOT).iter_rows(named=True)]
    else:
        encoded = join_columns(header, *_snapshot_front(created), tails)
    return [
        Output(key=customer_id.encode(), value=value, headers=_headers("Customer", event_id))
        for customer_id, value, event_id in zip(created["customer_id"], encoded, created["event_id"], strict=True)
    ]


_SNAPSHOT: Final = ("customer_id", "account_number", "version", "updated_at", "customer")


def _snapshot_front(created: pl.DataFrame) -> tuple[Iterable[bytes], ...]:
    """The fields of a new customer's snapshot before the customer itself, encoded, a column each."""
    return (
        map(text_bytes, created["customer_id"]),
        map(text_bytes, created["account_number"]),
        repeat(zigzag(1), created.height),
        _times(created["updated_at"]),
    )


def _times(times: pl.Series) -> Iterable[bytes]:
    """Times as Avro has them; a batch has one time for all its customers."""
    micros = times.to_physical()
    encoded = {one: zigzag(one) for one in micros.unique()}
    return map(encoded.__getitem__, micros)


def _tails(created: pl.DataFrame, values: Sequence[bytes | None]) -> list[bytes] | None:
    """The customer's own bytes of each plain event, or None when one of them is not encoded as everybody does.

    Avro lets a writer say the same in more bytes (long varints, lists in blocks, sizes before blocks), never in fewer.
    So the computed start is the true one if nothing before it took more than it must, which is checked byte by byte:
    a varint that can be n bytes long is, when its n-th byte is its last; a list is one block when its first count is
    the full one; and as no path is empty or has a NUL, what ends both lists and chooses the customer (00 00 02) can
    stand nowhere before.
    """
    if created["changed"].explode().str.contains("^$|\x00").any():
        return None
    tails = []
    for row, channel_bytes, time_bytes, paths, start in created.select(ROW, *_lengths()).iter_rows():
        value = values[row] or b""
        body = header_bytes(value)
        kind = body + 2 * _GUID_BYTES + 1 + channel_bytes
        version = kind + 1 + time_bytes
        customer = body + start
        if not (
            value[body] == value[body + _GUID_BYTES] == _GUID_LENGTH
            and value[body + 2 * _GUID_BYTES] == 2 * channel_bytes < _VARINT_MORE
            and value[kind] == value[version] == 0
            and value[version - 1] < _VARINT_MORE
            and value[version + 1] == 2 * paths < _VARINT_MORE
            and value[customer - 3 : customer] == b"\x00\x00\x02"
        ):
            return None
        tails.append(value[customer:])
    return tails


_GUID_LENGTH: Final = 72
"""The zigzag of 36."""

_VARINT_MORE: Final = 128
"""From this value on a byte of a varint says that another follows."""


def _lengths() -> tuple[pl.Expr, ...]:
    """Of a plain event: bytes of the channel id, bytes of the time, number of paths, and where the customer starts."""
    channel_bytes = pl.col("channel_id").str.len_bytes()
    time_bytes = _zigzag_bytes(pl.col("occurred_at").to_physical())
    paths = pl.col("changed").list.len()
    text_bytes = pl.element().str.len_bytes()
    path_bytes = pl.col("changed").list.eval(_zigzag_bytes(text_bytes) + text_bytes).list.sum()
    start = (
        2 * _GUID_BYTES
        + 1  # the length of the channel id
        + channel_bytes
        + 1  # kind
        + time_bytes
        + 1  # based_on_version: 0
        + pl.when(paths == 0).then(0).otherwise(1 + path_bytes)
        + 1  # end of changed
        + 1  # supersedes: none
        + 1  # the customer is not null
    )
    return channel_bytes, time_bytes.alias("time_bytes"), paths.alias("paths"), start.alias("start")


def _zigzag_bytes(number: pl.Expr) -> pl.Expr:
    """How many bytes an Avro long takes, for numbers from 0 on; 7 bits a byte, one of them for the sign."""
    doubled = number.cast(pl.Int64) * 2
    return pl.sum_horizontal(1, *((doubled >= 1 << bits).cast(pl.Int64) for bits in range(7, 63, 7)))


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


def replies(synchronized: Iterable[Synchronized[Created]], headers: Mapping[str, bytes]) -> list[Output]:
    """The answer to every event of the batch, keyed by channel."""
    outputs: list[Output] = []
    for one in synchronized:
        outputs.extend(one.created.replies)
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
        _times(created["updated_at"]),
        repeat(b"\x00", count),  # no transaction
        repeat(b"\x00", count),  # no sales order
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
