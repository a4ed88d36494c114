"""Classify the events of a batch without I/O: simple creates (bulk) or events that need individual handling.

A simple create makes a new customer, certainly breaks no rule, names only known paths, supersedes nothing, and is alone
in the batch with its customer and its event id. Simple creates stay in columns up to the database. Every other event
is an `IndividualEvent`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from tenten.avro.batches import LARGE_BYTES, DecodedBatch, UnreadableRow, decode_batch, empty_frame
from tenten.avro.small_batch import decode_small_batch
from tenten.avro.wire import Json, WriterSchemas, contract
from tenten.consumers.headquarters.content_hash import content_hashes
from tenten.consumers.headquarters.customers.definitions import are_defined
from tenten.consumers.headquarters.identifiers import events_with_identifiers, has_identifiers
from tenten.consumers.headquarters.known_channels import KnownChannels, entities_of
from tenten.consumers.headquarters.misplaced import without_misplaced
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.rules.customer import PARTS, PATH_CHARACTERS_MAX, SCALARS
from tenten.rules.customer_rules_columns import passes_fast_path
from tenten.rules.operator_rule_columns import operator_is_valid
from tenten.schemas.messages import ROW, CustomerEvent, EventKind, Reason, event_from_avro
from tenten.schemas.topics import EVENT_BYTES_MAX

SMALL_BATCH_MAX: Final = 150
"""Records up to which plain values cost less than columns, at headquarters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndividualEvent:
    """An event that needs individual handling, and its row in the batch."""

    row: int
    event: CustomerEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedBatch:
    """A batch in which every row is a simple create, an individual event or unreadable."""

    simple_creates: pl.DataFrame
    """The event's columns, with `row` and `exact`, in the order of `row`."""
    individual_events: tuple[IndividualEvent, ...]
    unreadable: tuple[UnreadableRow, ...]
    positions: RecordPositions
    content_hashes: Sequence[int | None]
    """By row."""
    rejection: tuple[Reason, ...] = ()
    """Reasons that reject the only event of the batch whatever it contains: the database does not accept it."""
    only_one: bool = False
    """Whether at most one event may be judged, the only one of the batch or a held one of its customer."""

    @property
    def event_count(self) -> int:
        """The number of readable events."""
        return self.simple_creates.height + len(self.individual_events)


def decode_small(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], writers: WriterSchemas
) -> list[Json] | None:
    """The events of a small batch as decoded records; None for a large batch, and if one is unreadable or large.

    May block while a schema is looked up; raises what `writers` raises when that fails.
    """
    if len(values) > SMALL_BATCH_MAX:
        return None
    fitting = [value for value in values if value is not None and len(value) <= LARGE_BYTES]
    if len(fitting) < len(values):
        return None
    events = decode_small_batch(contract("CustomerEvent"), keys, fitting, writers)
    return events if events is not None and all(map(has_identifiers, events)) else None


def individually(events: Sequence[Json], values: Sequence[bytes | None], positions: RecordPositions) -> ClassifiedBatch:
    """A small batch with every event an individual event: columns would cost more. `values` are the framed events."""
    return ClassifiedBatch(
        simple_creates=empty_frame(contract("CustomerEvent")),
        individual_events=tuple(
            IndividualEvent(row=row, event=event_from_avro(event)) for row, event in enumerate(events)
        ),
        unreadable=(),
        positions=positions,
        content_hashes=content_hashes(values),
    )


def decode_and_classify(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    channels: KnownChannels,
    positions: RecordPositions,
    *,
    partitions: int,
    refuse: Callable[[DecodedBatch], DecodedBatch] = lambda decoded: decoded,
) -> ClassifiedBatch:
    """Decode a batch of framed values in columns and classify its events; `partitions` is the number of the topic's.

    `refuse` turns the records that are not accepted from their writer into unreadable ones.
    May block while a schema is looked up; raises what `writers` raises when that fails.
    """
    decoded = decode_batch(
        contract("CustomerEvent"), keys, values, writers, EVENT_BYTES_MAX, only_columns_above=LARGE_BYTES
    )
    decoded = events_with_identifiers(refuse(decoded))
    return classify(without_misplaced(decoded, keys, positions, partitions), values, channels, positions)


def classify(
    decoded: DecodedBatch, values: Sequence[bytes | None], channels: KnownChannels, positions: RecordPositions
) -> ClassifiedBatch:
    """Divide the readable events of a batch into simple creates and individual events. `values` are all framed ones."""
    frame = decoded.frame
    if frame.height <= SMALL_BATCH_MAX:
        simple = pl.repeat(False, frame.height, eager=True)
    else:
        entities = entities_of(frame["channel_id"].unique(), channels.legal_entity_by_channel)
        simple_create = _is_simple_create(entities) & has_known_paths() & passes_fast_path(frame)
        simple = frame.select(simple_create).to_series().fill_null(False) & are_defined(frame, channels.definitions)
    return ClassifiedBatch(
        simple_creates=frame.filter(simple),
        individual_events=_individual_events(frame.filter(~simple)),
        unreadable=decoded.unreadable,
        positions=positions,
        content_hashes=content_hashes(values),
    )


def _is_simple_create(legal_entity_by_channel: Mapping[str, str]) -> pl.Expr:
    """One boolean a row: creates a customer of its channel's legal entity, has a valid operator, and is alone with the
    customer in the batch.
    """
    channel = pl.col("channel_id")
    entity = channel.replace_strict(dict(legal_entity_by_channel), default=None, return_dtype=pl.String)
    return (
        (pl.col("kind") == EventKind.CREATED)
        & (pl.col("based_on_version") == 0)
        & pl.col("customer").is_not_null()
        & (pl.col("supersedes").list.len() == 0)
        & operator_is_valid()
        & (entity == pl.col("customer").struct.field("legal_entity"))
        & pl.col("customer_id").is_unique()
        & pl.col("event_id").is_unique()
    )


def has_known_paths() -> pl.Expr:
    """One boolean a row, from the column `changed`: every path is certainly known to `is_path`."""
    return pl.col("changed").list.eval(pl.element().str.contains(_KNOWN_PATH)).list.all()


_KEY_CHARACTERS_MAX: Final = PATH_CHARACTERS_MAX - max(map(len, PARTS)) - 1
_KNOWN_PATH: Final = (
    rf"^(?:{'|'.join((*SCALARS, 'address_books'))}|(?:{'|'.join(PARTS)})/[^\x00]{{1,{_KEY_CHARACTERS_MAX}}})$"
)


def _individual_events(frame: pl.DataFrame) -> tuple[IndividualEvent, ...]:
    rows = frame.iter_rows(named=True)
    return tuple(IndividualEvent(row=row[ROW], event=event_from_avro(row)) for row in rows)


def as_individual(batch: ClassifiedBatch, customer_ids: Collection[str] | None = None) -> ClassifiedBatch:
    """The same batch with every event an individual event, or those of these customers: for simple creates that turn
    out not to be simple.
    """
    is_individual = pl.lit(True) if customer_ids is None else pl.col("customer_id").is_in(list(customer_ids))
    events = (*batch.individual_events, *_individual_events(batch.simple_creates.filter(is_individual)))
    return ClassifiedBatch(
        simple_creates=batch.simple_creates.filter(~is_individual),
        individual_events=tuple(sorted(events, key=lambda individual: individual.row)),
        unreadable=batch.unreadable,
        positions=batch.positions,
        content_hashes=batch.content_hashes,
    )


def halves(batch: ClassifiedBatch) -> tuple[ClassifiedBatch, ClassifiedBatch]:
    """The batch split in two by its rows; the unreadable rows belong to the second."""
    creates, events = batch.simple_creates, batch.individual_events
    rows = sorted([*creates[ROW].to_list(), *(individual.row for individual in events)])
    middle = rows[len(rows) // 2]
    first = ClassifiedBatch(
        simple_creates=creates.filter(pl.col(ROW) < middle),
        individual_events=tuple(individual for individual in events if individual.row < middle),
        unreadable=(),
        positions=batch.positions,
        content_hashes=batch.content_hashes,
    )
    second = ClassifiedBatch(
        simple_creates=creates.filter(pl.col(ROW) >= middle),
        individual_events=tuple(individual for individual in events if individual.row >= middle),
        unreadable=batch.unreadable,
        positions=batch.positions,
        content_hashes=batch.content_hashes,
    )
    return first, second
