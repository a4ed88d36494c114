"""Commands that were begun and have not ended: `recover` and `republish` are repeated until they end."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, delete, exists, select
from sqlalchemy.dialects.postgresql import insert

from tenten.runtime.errors import DatabaseRefused
from tenten.schemas.tables.headquarters import unfinished_commands

RECOVER: Final = "recover"
REPUBLISH: Final = "republish"


def begin_command(
    headquarters: Connection, command: str, topic_id: str | None = None, customer_id: str | None = None
) -> None:
    """Record that the command has begun, or how far it has come: up to this customer, in this topic."""
    row = {"command": command, "topic_id": topic_id, "customer_id": customer_id, "started_at": datetime.now(UTC)}
    begun = insert(unfinished_commands).values(row)
    reached = {name: begun.excluded[name] for name in ("topic_id", "customer_id")}
    headquarters.execute(begun.on_conflict_do_update(index_elements=["command"], set_=reached))


def continue_after(headquarters: Connection, command: str, topic_id: str) -> str | None:
    """The customer up to which an interrupted command has come in this topic."""
    table = unfinished_commands.c
    return headquarters.scalar(select(table.customer_id).where(table.command == command, table.topic_id == topic_id))


def end_command(headquarters: Connection, command: str) -> None:
    """Record that the command has ended. Idempotent."""
    headquarters.execute(delete(unfinished_commands).where(unfinished_commands.c.command == command))


def refuse_half_recovered(engine: Engine) -> None:
    """Raises: `DatabaseRefused` when a recovery was interrupted: a worker would judge events again that are decided."""
    with engine.begin() as headquarters:
        begun = headquarters.scalar(select(exists().where(unfinished_commands.c.command == RECOVER)))
    if begun:
        raise DatabaseRefused(
            "`tenten headquarters recover` was interrupted, and headquarters' database is only half recovered: run it "
            "again to its end, then start this worker"
        )
