"""The table of held events: what headquarters cannot judge yet, with its original bytes.

An event is held while a channel, a legal entity or an account number is missing. It is logged with the outcome `held`
and judged when the cause is gone, in the order in which the customer's events arrived. A judged event keeps its row
until its reply is on the topic; that of an erased customer loses its content at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, delete, select

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.runtime.errors import DatabaseRefused
from tenten.schemas.messages import CustomerEvent, Reason, event_from_avro, reasons_from_json
from tenten.schemas.tables.headquarters import held_events
from tenten.sql.arrays import is_one_of

UNKNOWN_CHANNEL: Final = "unknown_channel"
UNKNOWN_LEGAL_ENTITY: Final = "unknown_legal_entity"
NUMBERS_MISSING: Final = ("no_number_sequence", "number_sequence_used_up")
"""The codes of the reasons for which events are held."""

CHANNEL_EVENTS_MAX: Final = 50_000
CHANNEL_BYTES_MAX: Final = 64 * 1024 * 1024
"""The most that is held for one channel. Further events are answered `held` without being stored; their store sends
them again once a day."""

EVENTS_MAX: Final = 250_000
BYTES_MAX: Final = 1024 * 1024 * 1024
"""The most that is held for all channels together."""


class Original(NamedTuple):
    """The record of an event as it was received; its key is the customer's id."""

    value: bytes
    headers: Sequence[tuple[str, bytes | None]]


Originals = Callable[[int], Original]
"""The record of each row of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldEvent:
    """A stored event that was held, or that was judged and may lack its reply on the topic."""

    held_id: int
    event_id: str
    customer_id: str
    reasons: tuple[Reason, ...]
    judged: bool
    event: CustomerEvent | None
    """None if its customer is erased."""
    rejection: tuple[Reason, ...]
    """The reasons with which a person has rejected it; empty for an event that may be judged."""


class HeldCustomers:
    """The ids of the customers with held events, in memory: a batch of other customers need not ask the database.

    Loaded at each assignment. May contain customers whose events were judged by another worker, and lack customers of
    its partitions that are not this worker's: the owner of a partition is the only writer.
    """

    def __init__(self, writers: WriterSchemas) -> None:
        self.writers = writers
        self._ids: set[str] = set()

    def load(self, engine: Engine) -> None:
        """Read the ids of all customers with held events."""
        with engine.begin() as headquarters:
            self._ids = set(headquarters.scalars(select(held_events.c.customer_id).distinct()))

    def are_known(self) -> bool:
        """Whether this worker knows of any customer with held events."""
        return bool(self._ids)

    def among(self, customer_ids: Iterable[str]) -> set[str]:
        """Those of these customers that may have held events."""
        return self._ids.intersection(customer_ids) if self._ids else set()

    def add(self, customer_ids: Iterable[str]) -> None:
        """Note that these customers have held events now, or may have."""
        self._ids.update(customer_ids)

    def read(self, headquarters: Connection, customer_ids: Iterable[str]) -> list[HeldEvent]:
        """The held events of these customers, in the order in which they arrived.

        Raises: `DatabaseRefused` when the schema of an event is not known any more.
        """
        ids = list(customer_ids)
        if not ids:
            return []
        columns = held_events.c
        query = select(
            *(columns.held_id, columns.event_id, columns.customer_id),
            *(columns.reasons, columns.value, columns.judged_at, columns.rejection),
        ).where(is_one_of(headquarters, columns.customer_id, ids))
        found = [
            HeldEvent(
                held_id=row.held_id,
                event_id=row.event_id,
                customer_id=row.customer_id,
                reasons=reasons_from_json(row.reasons),
                judged=row.judged_at is not None,
                event=self._decoded(row.event_id, row.value) if row.value else None,
                rejection=reasons_from_json(row.rejection),
            )
            for row in headquarters.execute(query.order_by(columns.held_id))
        ]
        self._ids.difference_update(set(ids).difference(held.customer_id for held in found))
        return found

    def _decoded(self, event_id: str, value: bytes) -> CustomerEvent:
        try:
            return event_from_avro(self.writers.decode(bytes(value), contract("CustomerEvent")))
        except Unreadable as error:
            raise DatabaseRefused(
                f"the held event {event_id} {error.text}: the schema that it was written with is missing. Run `tenten "
                "topics apply`, or restore the schema registry"
            ) from error

    def delete_answered(self, engine: Engine, held_ids: Sequence[int]) -> None:
        """Delete judged events whose replies are on the topic. Idempotent."""
        if not held_ids:
            return
        with engine.begin() as headquarters:
            answered = is_one_of(headquarters, held_events.c.held_id, held_ids)
            statement = delete(held_events).where(answered, held_events.c.judged_at.is_not(None))
            touched = set(headquarters.scalars(statement.returning(held_events.c.customer_id)))
            of_touched = is_one_of(headquarters, held_events.c.customer_id, touched)
            left = set(headquarters.scalars(select(held_events.c.customer_id).distinct().where(of_touched)))
        self._ids.difference_update(touched - left)
