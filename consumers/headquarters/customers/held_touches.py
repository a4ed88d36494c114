"""Have held events judged again when their cause may be gone: headquarters sends itself a touch for each customer.

The touch goes through `async-customers`, so the owner of the customer's partition judges the held events in its SQL
transaction. It is sent when headquarters has the channel or the legal entity, or when the number sequence has numbers;
for events that a person has decided to reject; and for judged events whose replies may have been lost. The causes are
checked as soon as `tenten settings apply` has changed something. A customer that is touched in vain is touched again
after a pause that doubles.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from threading import Event
from typing import Final
from uuid import UUID, uuid5

import psycopg
from sqlalchemy import Connection, Engine, select, text
from structlog import get_logger

from tenten.consumers.headquarters.customers.held_events import (
    NUMBERS_MISSING,
    UNKNOWN_CHANNEL,
    UNKNOWN_LEGAL_ENTITY,
    HeldCustomers,
)
from tenten.consumers.headquarters.customers.own_events import send_own_events, touch_of
from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.registry.apply import SETTINGS_CHANNEL
from tenten.rules.number_sequence import number_format
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.messages import CustomerEvent
from tenten.schemas.tables.headquarters import number_sequences
from tenten.sql.notifications import listening

log = get_logger(__name__)

CHECK_SECONDS: Final = 10.0
"""How often the causes are checked while this worker knows of held events."""

IDLE_CHECKS: Final = 6
"""Otherwise they are checked once in this many times: another worker may have held events and ended."""

TOUCHES_MAX: Final = 10_000
"""The most customers touched in one pass."""

_PAUSE_SECONDS: Final = 60
_PAUSE_DOUBLINGS_MAX: Final = 6
"""The pause between two touches of a customer, and how often it doubles: up to about an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTouches:
    """Touches customers with held events. Keeps the registry of the worker up to date as well."""

    settings: Settings
    engine: Engine
    registry: ChannelRegistry
    held: HeldCustomers
    headers: Mapping[str, bytes]
    """The framing by contract name."""

    def run(self, retry: Retry, stop: Event) -> None:
        """Touch the customers whose held events can be judged, until `stop` is set. Raises: transient errors."""
        with listening(self.engine, SETTINGS_CHANNEL) as notification:
            for check in count():
                if stop.is_set():
                    return
                has_changed = self.registry.refresh()
                must_look = has_changed or self.held.are_known() or check % IDLE_CHECKS == 0
                customer_ids = self.due() if must_look else []
                if customer_ids:
                    touches = map(touch_of_held, customer_ids)
                    send_own_events(self.settings, self.engine, touches, self.headers["CustomerEvent"])
                    log.info("held_customers_touched", customers=len(customer_ids))
                retry.recovered()
                seconds = CHECK_SECONDS * random.uniform(0.8, 1.2)
                try:
                    notification.wait(seconds, stop)
                except psycopg.OperationalError:
                    # Perhaps the database is being replaced: a worker without batches does not connect meanwhile.
                    stop.wait(seconds)
                    raise

    def due(self) -> list[str]:
        """The customers to touch now; notes that they are touched. None while another worker is looking."""
        now = datetime.now(UTC)
        with self.engine.begin() as headquarters:
            if not headquarters.scalar(_ANY_HELD) or not headquarters.scalar(_LOCK):
                return []
            due = list(headquarters.scalars(_TOUCH_DECIDED, _parameters(now, TOUCHES_MAX)))
            for code, subject in headquarters.execute(_CAUSES).all():
                customers_max = min(TOUCHES_MAX - len(due), self._judgeable(headquarters, code, subject))
                if customers_max > 0:
                    cause = {"code": code, "subject": subject, **_parameters(now, customers_max)}
                    due += headquarters.scalars(_TOUCH_CAUSE, cause)
        return list(dict.fromkeys(due))

    @staticmethod
    def _judgeable(headquarters: Connection, code: str, subject: str) -> int:
        """How many customers could be judged that are held for this cause; 0 while it exists."""
        if code in _IS_KNOWN:
            return TOUCHES_MAX if headquarters.scalar(_IS_KNOWN[code], {"subject": subject}) else 0
        assert code in NUMBERS_MISSING
        sequence = select(number_sequences).where(number_sequences.c.legal_entity == subject)
        row = headquarters.execute(sequence).first()
        return 0 if row is None else max(0, number_format(row.format).number_max - row.next + 1)


def touch_of_held(customer_id: str) -> CustomerEvent:
    """The touch of a customer. All have the same id, so the log has one row for them."""
    return touch_of(customer_id, str(uuid5(UUID(customer_id), "held")))


def _parameters(now: datetime, customers_max: int) -> dict[str, object]:
    return {"now": now, "customers_max": customers_max, "pause": _PAUSE_SECONDS, "doublings_max": _PAUSE_DOUBLINGS_MAX}


_IS_KNOWN: Final = {
    UNKNOWN_CHANNEL: text("SELECT EXISTS (SELECT FROM channels WHERE channel_id = :subject)"),
    UNKNOWN_LEGAL_ENTITY: text("SELECT EXISTS (SELECT FROM legal_entities WHERE legal_entity = :subject)"),
}
"""By the code of the cause: whether it is gone."""

_ANY_HELD: Final = text("SELECT EXISTS (SELECT FROM held_events)")

_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(hashtextextended('tenten.held', 0))")
"""One worker at a time."""

_CAUSES: Final = text("SELECT code, subject FROM held_events WHERE judged_at IS NULL GROUP BY code, subject")

_TOUCH: Final = """
    WITH due AS MATERIALIZED (
        SELECT customer_id FROM held_events
        WHERE {condition} AND (
            touched_at IS NULL
            OR touched_at > :now + :pause * interval '1 second'
            OR touched_at < :now - :pause * power(2, least(touches - 1, :doublings_max)) * interval '1 second'
        )
        GROUP BY customer_id ORDER BY min(held_id) LIMIT :customers_max
    )
    UPDATE held_events SET touched_at = :now, touches = touches + 1
    FROM due WHERE held_events.customer_id = due.customer_id
    RETURNING held_events.customer_id::text
"""
"""A touch that lies in the future was noted with a wrong clock."""

_TOUCH_CAUSE: Final = text(_TOUCH.format(condition="code = :code AND subject = :subject AND judged_at IS NULL"))
"""Note a touch of the customers held for this cause that are due, in the order in which their events arrived."""

_TOUCH_DECIDED: Final = text(
    _TOUCH.format(
        condition="(judged_at < :now - :pause * interval '1 second' OR (judged_at IS NULL AND rejection IS NOT NULL))"
    )
)
"""The same for customers with judged events whose replies are probably not on the topic, and with events that a person
has decided to reject."""
