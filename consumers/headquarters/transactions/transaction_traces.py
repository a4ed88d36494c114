"""The traces of transactions, kept for a day: replies to a transaction follow later, perhaps from another worker."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, delete, exists, select
from sqlalchemy.dialects.postgresql import insert

from tenten.rules.limits import is_guid
from tenten.schemas.tables.headquarters import transaction_traces
from tenten.sql.arrays import is_one_of

KEPT: Final = timedelta(days=1)


def note_traces(engine: Engine, traceparents: Mapping[str, str], now: datetime) -> None:
    """Keep the trace of each of these transactions; nothing is asked where none is traced. Idempotent."""
    rows = [
        {"transaction_id": transaction_id, "traceparent": traceparent, "noted_at": now}
        for transaction_id, traceparent in traceparents.items()
        if is_guid(transaction_id)
    ]
    if rows:
        with engine.begin() as headquarters:
            headquarters.execute(delete(transaction_traces).where(transaction_traces.c.noted_at < now - KEPT))
            headquarters.execute(insert(transaction_traces).on_conflict_do_nothing(), rows)


def traces_of(headquarters: Connection, transaction_ids: Collection[str]) -> dict[str, str]:
    """The traces of these transactions, where they are known. One short look-up where no transaction is traced."""
    if not headquarters.scalar(_ANY):
        return {}
    is_given = is_one_of(headquarters, transaction_traces.c.transaction_id, transaction_ids)
    query = select(transaction_traces.c.transaction_id, transaction_traces.c.traceparent).where(is_given)
    return {str(row.transaction_id): row.traceparent for row in headquarters.execute(query)}


_ANY: Final = select(exists(select(transaction_traces.c.transaction_id)))
