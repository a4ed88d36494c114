"""Judge a batch without I/O: which events are plainly fine, and which have to be looked at one by one.

A plain event creates a customer, breaks no rule for certain, brings no other event along, and is alone in the batch
with its customer and its id. A batch of plain events stays in columns all the way. Everything else is a `LooseEvent`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from tenten.avro.batches import DecodedBatch, UnreadableRow, decode_batch, empty_frame
from tenten.avro.small_batch import FEW_RECORDS, decode_few
from tenten.avro.wire import WriterSchemas, contract
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.rules.customer_rules import surely_valid
from tenten.rules.limits import GUID
from tenten.schemas.messages import HEADQUARTERS, ROW, CustomerEvent, EventKind, Reason, event_from_avro
from tenten.schemas.topics import EVENT_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseEvent:
    """An event to be looked at by itself, and where it stood."""

    row: int
    event: CustomerEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A batch, judged: every row is plain, loose or unreadable."""

    plain: pl.DataFrame
    """The event's columns, with `row` and `exact`, in the order of `row`."""
    loose: tuple[LooseEvent, ...]
    unreadable: tuple[UnreadableRow, ...]
    places: RecordPositions
    refused: tuple[Reason, ...] = ()
    """Why its only event is refused whatever it says: the database does not take it."""

    @property
    def events(self) -> int:
        """How many events there are; dead letters are none."""
        return self.plain.height + len(self.loose)


def take_in(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    known: KnownChannels,
    places: RecordPositions,
) -> Judged:
    """Read a batch of framed values and judge it. A few are read one by one, and each is loose: it has no columns to
    wait for.

    May block where a schema is looked up; raises what `writers` raises when that cannot be reached.
    """
    reader = contract("CustomerEvent")
    given = [value for value in values if value is not None and len(value) <= EVENT_BYTES_MAX]
    few = decode_few(reader, keys, given, writers) if len(given) == len(values) <= FEW_RECORDS else None
    if few is None:
        return judge(decode_batch(reader, keys, values, writers, EVENT_BYTES_MAX), known, places)
    return Judged(
        plain=empty_frame(reader),
        loose=tuple(LooseEvent(row=row, event=event_from_avro(event)) for row, event in enumerate(few)),
        unreadable=(),
        places=places,
    )


def judge(decoded: DecodedBatch, known: KnownChannels, places: RecordPositions) -> Judged:
    """Divide the readable events of a batch into plain and loose ones."""
    frame = decoded.frame
    if frame.height <= FEW_RECORDS:
        plain = pl.repeat(False, frame.height, eager=True)
    else:
        plain = frame.select(_plain(known) & surely_valid(frame)).to_series().fill_null(False)
    loose = frame.filter(~plain)
    return Judged(
        plain=frame.filter(plain),
        loose=tuple(LooseEvent(row=row[ROW], event=event_from_avro(row)) for row in loose.iter_rows(named=True)),
        unreadable=decoded.unreadable,
        places=places,
    )


def loosened(judged: Judged) -> Judged:
    """The same batch with every event loose: for a batch in which some customer or event turned out to be known."""
    events = judged.plain.iter_rows(named=True)
    loose = [LooseEvent(row=row[ROW], event=event_from_avro(row)) for row in events]
    return Judged(
        plain=judged.plain.clear(),
        loose=tuple(sorted((*judged.loose, *loose), key=lambda one: one.row)),
        unreadable=judged.unreadable,
        places=judged.places,
    )


def halves(judged: Judged) -> tuple[Judged, Judged]:
    """The batch in two by its rows, the dead letters in the second."""
    rows = sorted([*judged.plain[ROW].to_list(), *(one.row for one in judged.loose)])
    middle = rows[len(rows) // 2]
    first = Judged(
        plain=judged.plain.filter(pl.col(ROW) < middle),
        loose=tuple(one for one in judged.loose if one.row < middle),
        unreadable=(),
        places=judged.places,
    )
    second = Judged(
        plain=judged.plain.filter(pl.col(ROW) >= middle),
        loose=tuple(one for one in judged.loose if one.row >= middle),
        unreadable=judged.unreadable,
        places=judged.places,
    )
    return first, second


def _plain(known: KnownChannels) -> pl.Expr:
    """One boolean a row: creates a customer of its channel's own legal entity, and is alone with it in the batch."""
    channel = pl.col("channel_id")
    entity = channel.replace_strict(dict(known.legal_entity_by_channel), default=None, return_dtype=pl.String)
    return (
        (pl.col("kind") == EventKind.CREATED)
        & (pl.col("based_on_version") == 0)
        & pl.col("customer").is_not_null()
        & (pl.col("supersedes").list.len() == 0)
        & (entity == pl.col("customer").struct.field("legal_entity"))
        & pl.col("customer_id").is_unique()
        & pl.col("event_id").is_unique()
    )


def outer_reasons(event: CustomerEvent, known: KnownChannels) -> tuple[Reason, ...]:
    """What is wrong with an event whatever its customer looks like: channel, legal entity, what it must carry."""
    reasons = []
    if event.channel_id != HEADQUARTERS and event.channel_id not in known.legal_entity_by_channel:
        reasons.append(
            Reason(
                field="channel_id",
                code="unknown_channel",
                text=f"headquarters knows no channel {event.channel_id[:64]!r}",
            )
        )
    if not all(GUID.fullmatch(old.event_id) for old in event.supersedes):
        reasons.append(
            Reason(field="supersedes", code="invalid_id", text="An id is a GUID in lower case, with hyphens.")
        )
    if event.kind in (EventKind.ERASED, EventKind.TOUCHED):
        return tuple(reasons)
    if event.customer is None:
        return (*reasons, Reason(field="customer", code="required", text="the event carries no customer"))
    entity = event.customer.legal_entity
    if entity not in known.legal_entities:
        reasons.append(
            Reason(
                field="legal_entity",
                code="unknown_legal_entity",
                text=f"headquarters knows no legal entity {entity[:64]!r}",
            )
        )
    elif known.legal_entity_by_channel.get(event.channel_id, entity) != entity:
        reasons.append(other_legal_entity(entity))
    return tuple(reasons)


def other_legal_entity(entity: str) -> Reason:
    """The refusal of a customer of another legal entity than its channel's, or than it already belongs to."""
    return Reason(
        field="legal_entity",
        code="other_legal_entity",
        text=f"legal entity {entity!r} is not the one of this channel or customer",
    )
