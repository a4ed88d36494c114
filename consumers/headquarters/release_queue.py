"""Which waiting transactions are to be looked at: those whose customers a batch has brought, so that a round of
`consumers/headquarters/transactions/release.py` need not go through all that waits.

Nothing is lost where a transaction is missing here: each second or so a round goes through all of them.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from tenten.sql.arrays import pg_array_literal


def note_customers(headquarters: Connection, customer_ids: Iterable[str]) -> None:
    """Have those transactions looked at that wait for one of these customers. Belongs to the SQL transaction that
    brings them.
    """
    if headquarters.scalar(_SOMETHING_WAITS):
        headquarters.execute(_NOTE_CUSTOMERS, {"ids": pg_array_literal(customer_ids)})


_SOMETHING_WAITS: Final = text("SELECT EXISTS (SELECT FROM retail_transactions WHERE status IN ('waiting', 'blocked'))")

_NOTE_CUSTOMERS: Final = text(
    """
    INSERT INTO release_due (transaction_id)
    SELECT transaction_id FROM retail_transactions
    WHERE status IN ('waiting', 'blocked') AND customer_id = ANY (CAST(:ids AS uuid[]))
    """
)


def note_new(headquarters: Connection, ids: Sequence[str], customer_ids: Sequence[str | None]) -> None:
    """Have those of these new transactions looked at that have no customer, or one who is there already."""
    if ids:
        headquarters.execute(_NOTE_NEW, {"ids": pg_array_literal(ids), "customer_ids": pg_array_literal(customer_ids)})


_NOTE_NEW: Final = text(
    """
    INSERT INTO release_due (transaction_id)
    SELECT new.transaction_id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:customer_ids AS uuid[])) AS new (transaction_id, customer_id)
    LEFT JOIN customers ON customers.customer_id = new.customer_id
    WHERE new.customer_id IS NULL OR customers.customer_id IS NOT NULL
    """
)


class Noted(NamedTuple):
    """What was noted, a transaction perhaps twice."""

    notes: int
    ids: str
    """As `pg_array_literal` has them."""


def take_due(headquarters: Connection, rows_max: int) -> Noted:
    """Take so many of them out, at most."""
    return Noted._make(headquarters.execute(_TAKE_DUE, {"rows_max": rows_max}).one())


_TAKE_DUE: Final = text(
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
