"""Who has changed the registry, when and how."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from tenten.schemas.tables.headquarters import settings_history


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedChange:
    """One change of the registry."""

    change_id: int
    applied_at: datetime
    operator: str | None
    source: str
    """The command that applied it."""
    added: list[dict[str, Any]]
    """Each with `setting`, `before` and `after`, as the others."""
    changed: list[dict[str, Any]]
    removed: list[dict[str, Any]]


def list_history(headquarters: Connection, changes_max: int) -> list[AppliedChange]:
    """The last changes, the newest first."""
    query = select(settings_history).order_by(settings_history.c.change_id.desc()).limit(changes_max)
    return [
        AppliedChange(
            change_id=row.change_id,
            applied_at=row.applied_at,
            operator=row.operator,
            source=row.source,
            **row.changes,
        )
        for row in headquarters.execute(query)
    ]
