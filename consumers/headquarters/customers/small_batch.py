"""A small batch of new customers: what happens to most customers of a shop, in plain values and one round trip.

Every event of the batch is a *simple create*: it creates a customer of its channel's legal entity, breaks no rule,
names only known paths, supersedes nothing, and is alone in the batch with its customer and its event id. Its customer
gets the next account number, version 1, a row in the log, a snapshot and a reply. Any other batch is returned
untouched, and so is one that the database does not accept as it is: `synchronize.py` finds out why.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final, NamedTuple

import psycopg
from sqlalchemy import Connection, Engine
from structlog import get_logger

from tenten.avro.last_field import encode_all_but_last, last_field
from tenten.avro.wire import Json, WriterSchemas, contract, encode
from tenten.consumers.headquarters.content_hash import content_hash
from tenten.consumers.headquarters.customers.create_function import (
    CALL,
    CREATE_FUNCTION,
    CREATED_AS_ROW,
    OLDER_THAN_STREAM,
    SETTINGS_CHANGED,
)
from tenten.consumers.headquarters.customers.definitions import is_defined
from tenten.consumers.headquarters.customers.numbering import warn_when_nearly_used_up
from tenten.consumers.headquarters.customers.outputs import BatchOutputs, output_headers
from tenten.consumers.headquarters.customers.synchronization_log import FIRST_JUDGEMENT
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.output import Output
from tenten.consumers.headquarters.positions import StreamPositions, older_than_stream, settings_changed
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.rules.customer import is_path
from tenten.rules.customer_fast_path import record_passes
from tenten.rules.number_sequence import number_format
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.error_codes import is_transient
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import EventKind, Outcome
from tenten.sql.customer_records import Row, compact_json, iso_time, table_rows

log = get_logger(__name__)


class NewCustomer(NamedTuple):
    """A simple create."""

    event: Json
    """The decoded `CustomerEvent`."""
    customer_bytes: bytes
    """The customer, encoded as in the event."""
    content_hash: int
    partition: int
    offset: int


def new_customers(
    events: Sequence[Json],
    values: Sequence[bytes | None],
    positions: RecordPositions,
    writers: WriterSchemas,
    channels: KnownChannels,
) -> list[NewCustomer] | None:
    """The simple creates of a small batch, or None if one of its events is something else.

    `values` are the framed values from which the events were decoded.
    """
    if not all(_is_simple_create(event, channels) for event in events):
        return None
    if any(len({event[name] for event in events}) < len(events) for name in ("customer_id", "event_id")):
        return None
    framed = [value or b"" for value in values]
    return [
        NewCustomer(event, _customer_bytes(event, value, writers), content_hash(value), partition, offset)
        for event, value, partition, offset in zip(events, framed, positions.partitions, positions.offsets, strict=True)
    ]


def _is_simple_create(event: Json, channels: KnownChannels) -> bool:
    customer = event["customer"]
    return (
        event["kind"] == EventKind.CREATED
        and event["based_on_version"] == 0
        and customer is not None
        and not event["supersedes"]
        and channels.legal_entity_by_channel.get(event["channel_id"]) == customer["legal_entity"]
        and not any(operator_violations(event["operator"]))
        and all(map(is_path, event["changed"]))
        and record_passes(customer)
        and is_defined(customer, channels.definitions)
    )


def _customer_bytes(event: Json, value: bytes, writers: WriterSchemas) -> bytes:
    encoded = last_field(contract("CustomerEvent"), event, value, writers)
    if encoded is not None:
        return encoded[_NOT_NULL:]
    return encode(contract("Customer"), {**_ANY_SNAPSHOT, "customer": event["customer"]}, b"")[_ANY_SNAPSHOT_BYTES:]


_NOT_NULL: Final = 1
"""The byte before a value that might be null."""

_ANY_SNAPSHOT: Final[Json] = {
    "customer_id": "",
    "account_number": "",
    "version": 0,
    "updated_at": datetime.fromtimestamp(0, UTC),
}
_ANY_SNAPSHOT_BYTES: Final = len(encode_all_but_last(contract("Customer"), _ANY_SNAPSHOT, b""))


class SmallBatches:
    """Creates customers over a connection of its own, which lives as long as the worker. One thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def create(
        self,
        customers: Sequence[NewCustomer],
        topic: str,
        reached: StreamPositions,
        now: datetime,
        headers: Mapping[str, bytes],
    ) -> BatchOutputs | None:
        """Create the customers, in one SQL transaction; None when the database does not accept the batch as it is.

        `headers` are the framings by contract name. Raises: `DatabaseOlderThanStream`, `SettingsChanged`; transient
        errors.
        """
        # Sequences are locked in the order of their names; within each, numbers follow the order of the batch.
        numbered = sorted(customers, key=_legal_entity)
        counts = {entity: len(list(group)) for entity, group in groupby(numbered, _legal_entity)}
        ids = [customer.event["customer_id"] for customer in numbered]
        documents = _documents(numbered, topic, now)
        failpoint("headquarters.before_sql_commit")
        try:
            numbers, formats, next_numbers = self._call(
                (
                    *reached.parameters().values(),
                    *reached.checked_parameters().values(),
                    list(counts),
                    list(counts.values()),
                    ids,
                    *documents,
                )
            )
        except psycopg.Error as error:
            if error.sqlstate == OLDER_THAN_STREAM:
                raise older_than_stream(reached.stream) from error
            if error.sqlstate == SETTINGS_CHANGED:
                raise settings_changed() from error
            if is_transient(error):
                self.close()
                raise
            log.info("small_batch_refused", records=len(customers), code=error.sqlstate)
            return None
        for entity, format_of, next_number in zip(counts, formats, next_numbers, strict=True):
            warn_when_nearly_used_up(entity, number_format(format_of), next_number)
        return _outputs(customers, dict(zip(ids, numbers, strict=True)), now, headers)

    def _call(self, parameters: Sequence[Any]) -> tuple[list[str], list[str], list[int]]:
        """The account numbers of the customers; by legal entity the format and the next number of its sequence."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._driver: psycopg.Connection[Any] = self._connection.connection.driver_connection  # type: ignore[assignment]  # sqlalchemy's own protocol
            self._driver.execute(CREATE_FUNCTION)
        row: tuple[list[str], list[str], list[int]] | None = self._driver.execute(
            CALL, parameters, prepare=True
        ).fetchone()
        assert row is not None  # the function returns exactly one
        return row

    def close(self) -> None:
        """Give up the connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _documents(customers: Sequence[NewCustomer], topic: str, now: datetime) -> tuple[str, str, str, str]:
    """The rows of customers, addresses, contacts and log as JSON; customers and their parts in the order of locks."""
    rows = table_rows((_record(new, now) for new in customers), with_search_name=False)
    log_rows = [_log_row(new, topic, now) for new in customers]
    for number, (customer_row, log_row) in enumerate(zip(rows.customers, log_rows, strict=True), start=1):
        customer_row[CREATED_AS_ROW] = log_row[CREATED_AS_ROW] = number
    rows.customers.sort(key=_customer_id)
    return (
        compact_json(rows.customers),
        compact_json(rows.addresses),
        compact_json(rows.contacts),
        compact_json(log_rows),
    )


def _record(new: NewCustomer, now: datetime) -> Json:
    """The customer as a `Customer` record without its account number, which the database assigns."""
    return {
        "customer_id": new.event["customer_id"],
        "account_number": None,
        "version": 1,
        "updated_at": now,
        "customer": new.event["customer"],
    }


def _log_row(new: NewCustomer, topic: str, now: datetime) -> Row:
    event = new.event
    return {
        "event_id": event["event_id"],
        "customer_id": event["customer_id"],
        "channel_id": event["channel_id"],
        "kind": event["kind"].lower(),
        "outcome": Outcome.SYNCHRONIZED.lower(),
        "reasons": [],
        "version": 1,
        "operator": event["operator"],
        "repeats": 0,
        "judgement": FIRST_JUDGEMENT,
        "content_hash": new.content_hash,
        "conflicts": 0,
        "topic": topic,
        "partition": new.partition,
        "offset": new.offset,
        "occurred_at": iso_time(event["occurred_at"]),
        "received_at": iso_time(now),
    }


def _legal_entity(customer: NewCustomer) -> str:
    entity: str = customer.event["customer"]["legal_entity"]
    return entity


def _customer_id(row: Mapping[str, Any]) -> str:
    customer_id: str = row["customer_id"]
    return customer_id


def _outputs(
    customers: Sequence[NewCustomer], number_of: Mapping[str, str], now: datetime, headers: Mapping[str, bytes]
) -> BatchOutputs:
    """The snapshots and replies, given the account number of each customer id."""
    snapshots, replies = [], []
    for new in customers:
        event = new.event
        customer_id, event_id = event["customer_id"], event["event_id"]
        number = number_of[customer_id]
        snapshot = {"customer_id": customer_id, "account_number": number, "version": 1, "updated_at": now}
        start = encode_all_but_last(contract("Customer"), snapshot, headers["Customer"])
        snapshots.append(
            Output(
                key=customer_id.encode(),
                value=start + new.customer_bytes,
                headers=output_headers("Customer", event_id),
            )
        )
        reply = {
            "channel_id": event["channel_id"],
            "event_id": event_id,
            "customer_id": customer_id,
            "outcome": Outcome.SYNCHRONIZED.value,
            "reasons": [],
            "account_number": number,
            "version": 1,
            "answered_at": now,
            "judgement": FIRST_JUDGEMENT,
            "input_partition": new.partition,
            "input_offset": new.offset,
        }
        replies.append(
            Output(
                key=event["channel_id"].encode(),
                value=encode(contract("Reply"), reply, headers["Reply"]),
                headers=output_headers("Reply", event_id),
            )
        )
    return BatchOutputs(snapshots, replies)
