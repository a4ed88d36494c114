"""Send every customer to `customers` again, as after the topic was deleted and created again; then declare it complete.

Runs alone: only the customers worker may write customers, and of two writers the slower one could leave an older
version as the last record. Each customer is read from the database and sent as it is there; an erased one as a
tombstone and, on `erasures`, as its erasure. They are sent in the order of their ids, a slice at a time; after each
slice the database has the last id, so that an interrupted republication continues there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import uuid_utils
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from sqlalchemy import Connection, Engine, func, select
from structlog import get_logger

from tenten.consumers.headquarters.accepted_topics import accept_topic
from tenten.consumers.headquarters.alone import alone
from tenten.consumers.headquarters.customers.outputs import erasure_output, snapshot_output
from tenten.consumers.headquarters.customers.run import GROUP
from tenten.consumers.headquarters.input_positions import read_input
from tenten.consumers.headquarters.newest_outputs import OUTPUTS, outputs_lacking
from tenten.consumers.headquarters.output import Output
from tenten.consumers.headquarters.refusals import database_older
from tenten.consumers.headquarters.unfinished_commands import (
    REPUBLISH,
    begin_command,
    continue_after,
    end_command,
    refuse_half_recovered,
)
from tenten.kafka.client_config import producer_configuration
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.records import produce
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.topic_status import declare_complete
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import TopicChanged
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import customers
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS, ERASURES, HEADQUARTERS_STATUS, Topic
from tenten.sql.customer_rows import HEADQUARTERS_TABLES, StoredCustomer, read_customers
from tenten.sql.postgresql_driver import driver_of

log = get_logger(__name__)

SLICE_CUSTOMERS: Final = 2_000
_FLUSH_SECONDS: Final = 60.0

Progress = Callable[[int, int], None]
"""Called with the number of customers sent, and the total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Republished:
    """The result of a republication."""

    customers: int
    """Sent as snapshots, by this call and the interrupted ones before it."""
    erased: int
    """Sent as tombstones and erasures."""


def republish(settings: Settings, engine: Engine, progress: Progress = lambda _, __: None) -> Republished:
    """Send every customer again, then declare `customers` complete.

    Idempotent; continues an interrupted republication to the same topic. Memory does not grow with the customers.
    Raises: `LockHeld` while a customers worker runs; `DatabaseOlderThanStream`; `TopicChanged` when it is recreated
    meanwhile; `KafkaRefused`, `KafkaException`; errors of the database.
    """
    name = settings.topic(CUSTOMERS)
    with alone(settings, engine, [GROUP]):
        topic_ids(settings, map(settings.topic, (ERASURES, HEADQUARTERS_STATUS)))
        topic = topic_ids(settings, [name])[name]
        _refuse_older_database(settings, engine)
        with engine.begin() as headquarters:
            total = headquarters.scalar(select(func.count()).select_from(customers)) or 0
            after = continue_after(headquarters, REPUBLISH, topic.topic_id)
            done = _count_up_to(headquarters, after)
        sender = _Sender(settings)
        progress(done, total)
        for sent in _slices(engine, after):
            sender.send(sent)
            with engine.begin() as headquarters:
                begin_command(headquarters, REPUBLISH, topic.topic_id, sent[-1].customer_id)
            done += len(sent)
            progress(done, max(done, total))
        ends = last_stable_offsets(settings, name, topic.partitions)
        if topic_ids(settings, [name])[name] != topic:
            raise TopicChanged(f"topic {name} was deleted and created again meanwhile: republish again")
        declare_complete(settings, CUSTOMERS, topic.topic_id, ends)
        with engine.begin() as headquarters:
            accept_topic(headquarters, name, topic)
            end_command(headquarters, REPUBLISH)
            result = _count(headquarters)
    log.info("republished", topic=name, customers=result.customers, erased=result.erased)
    return result


def _refuse_older_database(settings: Settings, engine: Engine) -> None:
    """Raises: `DatabaseOlderThanStream` when older versions would follow newer ones, or customers would be left out."""
    refuse_half_recovered(engine)
    found = topic_ids(settings, map(settings.topic, OUTPUTS))
    with engine.connect() as connection:
        lacking = outputs_lacking(settings, writer_schemas(settings), driver_of(connection), found)
    if lacking:
        raise database_older(f"it lacks {lacking}")
    if read_input(settings, engine, GROUP, ASYNC_CUSTOMERS).to_repeat:
        raise database_older(f"the consumer group {settings.group(GROUP)} has read further than it")


class _Sender:
    """Sends snapshots, tombstones and erasures, and waits for the acknowledgements."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._headers = publish_schemas(settings)
        self._producer = Producer(producer_configuration(settings))
        self._failures: list[KafkaError] = []
        self._event_id = str(uuid_utils.uuid7())
        """No event caused these records: the id names the republication."""

    def send(self, sent: Sequence[StoredCustomer]) -> None:
        """Send these customers as they are. Raises: `KafkaRefused`, `KafkaException`."""
        for stored in sent:
            self._produce(CUSTOMERS, snapshot_output(stored, self._event_id, self._headers["Customer"]))
            if stored.erased:
                self._produce(ERASURES, erasure_output(stored, self._event_id, self._headers["Erasure"]))
        if self._producer.flush(_FLUSH_SECONDS):
            raise KafkaException(f"no answer within {_FLUSH_SECONDS} s: republish again, it continues where it stopped")
        for failure in self._failures:
            raise refusal_of(KafkaException(failure)) or KafkaException(failure)

    def _produce(self, topic: Topic, output: Output) -> None:
        produce(
            self._producer,
            self._settings.topic(topic),
            output.key,
            output.value,
            headers=output.headers,
            on_delivery=self._delivered,
        )

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(error)


def _slices(engine: Engine, after: str | None) -> Iterator[list[StoredCustomer]]:
    """All customers after this id, in slices in the order of their ids."""
    while True:
        query = select(customers.c.customer_id).order_by(customers.c.customer_id).limit(SLICE_CUSTOMERS)
        with engine.begin() as headquarters:
            ids = headquarters.scalars(query if after is None else query.where(customers.c.customer_id > after)).all()
            stored = read_customers(headquarters, HEADQUARTERS_TABLES, ids)
        if not stored:
            return
        yield list(stored.values())
        after = ids[-1]


def _count_up_to(headquarters: Connection, after: str | None) -> int:
    if after is None:
        return 0
    count = select(func.count()).select_from(customers).where(customers.c.customer_id <= after)
    return headquarters.scalar(count) or 0


def _count(headquarters: Connection) -> Republished:
    erased = func.count().filter(customers.c.erased_at.is_not(None))
    row = headquarters.execute(select(func.count(), erased).select_from(customers)).one()
    return Republished(customers=row[0] - row[1], erased=row[1])
