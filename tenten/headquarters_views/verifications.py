"""The newest comparisons of database and topic, and commands that have not ended."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from tenten.schemas.tables.headquarters import unfinished_commands, verifications


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One comparison."""

    finished_at: datetime
    customers: int
    missing: int
    surplus: int
    different: int

    @property
    def differences(self) -> int:
        """How many customers differed."""
        return self.missing + self.surplus + self.different


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedCommand:
    """`recover` or `republish`, which was begun and has not ended: it runs, or was interrupted."""

    command: str
    started_at: datetime
    customer_id: str | None
    """The last customer that was sent, in the order of their ids."""


def list_verifications(headquarters: Connection) -> list[Verification]:
    """The newest first."""
    query = select(verifications).order_by(verifications.c.finished_at.desc())
    return [Verification(**row) for row in headquarters.execute(query).mappings()]


def list_unfinished(headquarters: Connection) -> list[UnfinishedCommand]:
    """By name."""
    query = select(unfinished_commands).order_by(unfinished_commands.c.command)
    names = UnfinishedCommand.__slots__
    return [UnfinishedCommand(**{name: row[name] for name in names}) for row in headquarters.execute(query).mappings()]
