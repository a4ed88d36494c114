"""The audit of edits: one row for each path that an edit changed, with the old and the new value.

An erasure deletes the rows of its customer. Only the row of the request stays: who wanted the erasure, and why.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, update

from tenten.rules.customer import changed_paths, value_at
from tenten.schemas.messages import CustomerEvent, CustomerState
from tenten.schemas.tables.headquarters import customer_audit, customers
from tenten.sql.arrays import is_one_of

ERASURE: Final = "erasure"
"""The path of the row of a request to erase a customer; its new value is `{"why": text}`."""


def audit_rows(
    event: CustomerEvent, before: CustomerState, after: CustomerState, version: int, now: datetime
) -> list[dict[str, Any]]:
    """The rows of an edit, which made this version of the customer."""
    return [
        {
            "customer_id": event.customer_id,
            "event_id": event.event_id,
            "channel_id": event.channel_id,
            "operator": event.operator,
            "version": version,
            "path": path,
            "old_value": value_at(before, path),
            "new_value": value_at(after, path),
            "changed_at": now,
        }
        for path in changed_paths(before, after)
    ]


def write_audit(headquarters: Connection, rows: Sequence[dict[str, Any]], erased_ids: Collection[str]) -> None:
    """Delete the audit of erased customers, which are written already, and insert these rows."""
    if erased_ids:
        delete_audit(headquarters, erased_ids)
    if rows:
        headquarters.execute(insert(customer_audit), list(rows))


def delete_audit(headquarters: Connection, erased_ids: Collection[str]) -> None:
    """Delete the audit of erased customers but for the requests to erase them, which get version and time of that."""
    theirs = is_one_of(headquarters, customer_audit.c.customer_id, erased_ids)
    headquarters.execute(delete(customer_audit).where(theirs, customer_audit.c.path != ERASURE))
    headquarters.execute(
        update(customer_audit)
        .where(theirs, customer_audit.c.customer_id == customers.c.customer_id)
        .values(version=customers.c.version, changed_at=customers.c.erased_at)
    )
