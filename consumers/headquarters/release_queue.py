"""The release queue: waiting transactions whose customers a batch has synchronized.

A release pass (`transactions/release.py`) looks only at these. A transaction that is missing here is not lost: the full
scan, about once a second, looks at all that wait.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from tenten.consumers.headquarters.positions import notify_batch_committed
from tenten.sql.arrays import pg_array_literal


def enqueue_for_customers(headquarters: Connection, customer_ids: Iterable[str]) -> None:
    """Enqueue the transactions that wait for these customers, in the SQL transaction that synchronizes them; the
    release thread is notified if there are any.
    """
    if headquarters.scalar(_ANY_WAITING):
        enqueued = headquarters.execute(_ENQUEUE_FOR_CUSTOMERS, {"ids": pg_array_literal(customer_ids)}).rowcount
        if enqueued:
            notify_batch_committed(headquarters)


_ANY_WAITING: Final = text("SELECT EXISTS (SELECT FROM retail_transactions WHERE status IN ('waiting', 'blocked'))")

_ENQUEUE_FOR_CUSTOMERS: Final = text(
    """
    INSERT INTO release_due (transaction_id)
    SELECT transaction_id FROM retail_transactions
    WHERE status IN ('waiting', 'blocked') AND customer_id = ANY (CAST(:ids AS uuid[]))
    """
)


def enqueue_new(headquarters: Connection, ids: Sequence[str], customer_ids: Sequence[str | None]) -> None:
    """Enqueue those of these new transactions that have no customer, or one that exists already."""
    if ids:
        headquarters.execute(
            _ENQUEUE_NEW, {"ids": pg_array_literal(ids), "customer_ids": pg_array_literal(customer_ids)}
        )


_ENQUEUE_NEW: Final = text(
    """
    INSERT INTO release_due (transaction_id)
    SELECT new.transaction_id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:customer_ids AS uuid[])) AS new (transaction_id, customer_id)
    LEFT JOIN customers ON customers.customer_id = new.customer_id
    WHERE new.customer_id IS NULL OR customers.customer_id IS NOT NULL
    """
)


class Dequeued(NamedTuple):
    """Entries taken from the release queue; a transaction may occur twice."""

    entries: int
    ids: str
    """The transaction ids as a literal of `pg_array_literal`."""


def dequeue(headquarters: Connection, rows_max: int) -> Dequeued:
    """Delete up to this many entries and return them."""
    return Dequeued._make(headquarters.execute(_DEQUEUE, {"rows_max": rows_max}).one())


_DEQUEUE: Final = text(
    """
    WITH taken AS (
        DELETE FROM release_due WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM release_due LIMIT :rows_max FOR UPDATE SKIP LOCKED
        ))
        RETURNING transaction_id
    )
    SELECT count(*), format('{%s}', string_agg(transaction_id::text, ',')) FROM taken
    """
)
