"""Bring a restored, older database of headquarters to what its topics prove, so that the workers can go on.

In this order: keys and suspensions of channels, erased customers (they stay erased, and their numbers used), customers,
the log of what stores were told, number sequences, orders and sales. Then the group of the customers worker reads its
input again from where the database stands: with the log, every event that was decided before is a repeat, and gets the
same reply again. Events that were decided in the database and never told are new.

Runs alone. Every step is idempotent: an interrupted recovery is run again, and no worker starts before it has ended. On
a database that has lost nothing it changes nothing.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.headquarters.alone import alone
from tenten.consumers.headquarters.customers.run import GROUP as CUSTOMERS_GROUP
from tenten.consumers.headquarters.input_positions import read_input, set_back
from tenten.consumers.headquarters.newest_outputs import accept_outputs
from tenten.consumers.headquarters.published_settings import read_published, take_back_acceptance
from tenten.consumers.headquarters.recovery.decided_events import forget_decided_held_events, log_decided_events
from tenten.consumers.headquarters.recovery.lost_customers import recover_customers
from tenten.consumers.headquarters.recovery.lost_events import recover_events
from tenten.consumers.headquarters.recovery.lost_transactions import recover_transactions
from tenten.consumers.headquarters.recovery.sequences import Hole, advance_sequences
from tenten.consumers.headquarters.recovery.topic_batches import Progress
from tenten.consumers.headquarters.transactions.run import GROUP as TRANSACTIONS_GROUP
from tenten.consumers.headquarters.unfinished_commands import RECOVER, begin_command, end_command
from tenten.kafka.topics_admin import topic_exists, topic_ids
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ASYNC_CUSTOMERS, CHANNEL_SETTINGS, RETAIL_TRANSACTIONS

log = get_logger(__name__)

GROUPS: Final = (CUSTOMERS_GROUP, TRANSACTIONS_GROUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The result of a recovery: what was taken back, and what could not be."""

    customers: int
    """Customers that were missing in the database, or had an older version there."""
    erased: int
    events: int
    """Events that were not in the log, or were judged again later."""
    events_without_reply: int
    """Events that were processed, whose replies are not on `channel-replies` any more: logged, not applied again."""
    sales_orders: int
    repeated: int
    """Offsets of `async-customers` that the customers worker reads again."""
    expired: int
    """Offsets of both inputs that the database has not processed and Kafka has deleted: nothing is known of them."""
    orders_without_record: int
    """Sales orders that stores were told and that could not be restored."""
    conflicts: tuple[str, ...]
    """Customers of the topic that were left out: another customer of the database has their account number."""
    holes: tuple[Hole, ...]
    """Numbers that no customer has, in sequences that promise to have no gap."""
    channels: tuple[str, ...]
    """Channels whose keys or suspensions were taken back."""


def _take_back_acceptance(settings: Settings, engine: Engine) -> list[str]:
    """Take back keys and suspensions from `channel-settings`, which an earlier headquarters may not have."""
    name = settings.topic(CHANNEL_SETTINGS)
    if not topic_exists(settings, name):
        return []
    published = read_published(settings, topic_ids(settings, [name])[name].partitions)
    return take_back_acceptance(settings, engine, published)


def recover(settings: Settings, engine: Engine, progress: Progress = lambda *_: None) -> Recovered:
    """Recover the database. Idempotent.

    Raises: `LockHeld` while a worker runs; `DatabaseRefused` for a record that cannot be read; `KafkaRefused`,
    `KafkaException`; errors of the database.
    """
    with alone(settings, engine, GROUPS):
        with engine.begin() as headquarters:
            begin_command(headquarters, RECOVER)
        channels = _take_back_acceptance(settings, engine)
        events_input = read_input(settings, engine, CUSTOMERS_GROUP, ASYNC_CUSTOMERS)
        sales_input = read_input(settings, engine, TRANSACTIONS_GROUP, RETAIL_TRANSACTIONS)
        customers = recover_customers(settings, engine, progress)
        events, unreadable = recover_events(settings, engine, progress)
        unproved = log_decided_events(settings, engine, events_input, unreadable, progress)
        forget_decided_held_events(engine)
        holes = advance_sequences(engine)
        transactions = recover_transactions(settings, engine, sales_input, progress)
        # Last: before, the group's offsets tell a worker that the database is too old.
        set_back(settings, engine, read_input(settings, engine, TRANSACTIONS_GROUP, RETAIL_TRANSACTIONS))
        set_back(settings, engine, events_input)
        with engine.begin() as headquarters:
            # What could not be taken back is reported once; it does not keep the workers from starting.
            accept_outputs(settings, headquarters)
            end_command(headquarters, RECOVER)
    recovered = Recovered(
        customers=customers.customers,
        erased=customers.erased,
        events=events,
        events_without_reply=unproved,
        sales_orders=transactions.sales_orders,
        repeated=events_input.to_repeat,
        expired=events_input.expired + sales_input.expired,
        orders_without_record=len(transactions.without_record),
        conflicts=tuple(sorted(customers.conflicts)),
        holes=tuple(holes),
        channels=tuple(channels),
    )
    log.info(
        "recovered",
        customers=recovered.customers,
        erased=recovered.erased,
        events=recovered.events,
        sales_orders=recovered.sales_orders,
        repeated=recovered.repeated,
    )
    return recovered
