"""The record of operators' actions, in headquarters' database."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Engine, delete, insert, select, update

from tenten.schemas.tables.headquarters import operator_actions
from tenten.web.dashboard.access import Visitor

_DELETED_MAX: Final = 1_000
"""Old rows that are deleted with a new one: more than ever come in between."""


class Action(StrEnum):
    """What an operator does at the dashboard."""

    SIGN_IN = "sign_in"
    SEARCH_CUSTOMERS = "search_customers"
    SHOW_CUSTOMER = "show_personal_data"
    SHOW_DEAD_LETTER = "show_dead_letter"
    REJECT_HELD = "reject_held"
    REPLAY = "replay_dead_letter"
    DISCARD = "discard_dead_letter"
    SUSPEND = "suspend_channel"
    RESUME = "resume_channel"


ACTION_TEXTS: Final = {
    Action.SIGN_IN: "Signed in",
    Action.SEARCH_CUSTOMERS: "Searched customers by personal data",
    Action.SHOW_CUSTOMER: "Asked to see personal data",
    Action.SHOW_DEAD_LETTER: "Asked to see the content of a dead letter",
    Action.REJECT_HELD: "Rejected a held event",
    Action.REPLAY: "Replayed a dead letter",
    Action.DISCARD: "Discarded a dead letter",
    Action.SUSPEND: "Suspended a channel",
    Action.RESUME: "Resumed a channel",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAction:
    """A row of the record."""

    action_id: int
    acted_at: datetime
    operator: str
    via: str
    action: str
    subject: str
    reason: str | None
    outcome: str | None

    @property
    def text(self) -> str:
        """The action for people."""
        known = self.action in set(Action)
        return ACTION_TEXTS[Action(self.action)] if known else self.action


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionLog:
    """Records actions before they happen, so that none happens without its record."""

    engine: Engine
    days: int
    """How long rows are kept."""

    @contextmanager
    def recorded(self, visitor: Visitor, action: Action, subject: str, reason: str | None = None) -> Generator[None]:
        """The action is the block; its outcome is recorded at the end. Raises: what the block raises."""
        action_id = self._begin(visitor, action, subject, reason)
        try:
            yield
        except Exception:
            self._end(action_id, "failed")
            raise
        self._end(action_id, "done")

    def _begin(self, visitor: Visitor, action: Action, subject: str, reason: str | None) -> int:
        now = datetime.now(UTC)
        row = {
            "acted_at": now,
            "operator": visitor.name,
            "via": visitor.via,
            "action": action.value,
            "subject": subject,
            "reason": reason,
        }
        columns = operator_actions.c
        old = select(columns.action_id).where(columns.acted_at < now - timedelta(days=self.days)).limit(_DELETED_MAX)
        with self.engine.begin() as headquarters:
            headquarters.execute(delete(operator_actions).where(columns.action_id.in_(old)))
            action_id: int = headquarters.scalars(
                insert(operator_actions).values(row).returning(columns.action_id)
            ).one()
            return action_id

    def _end(self, action_id: int, outcome: str) -> None:
        done = update(operator_actions).where(operator_actions.c.action_id == action_id).values(outcome=outcome)
        with self.engine.begin() as headquarters:
            headquarters.execute(done)


def list_actions(headquarters: Connection, actions_max: int, behind: int | None = None) -> list[RecordedAction]:
    """The last actions, the newest first; those before the action of this id, if it is given."""
    query = select(operator_actions).order_by(operator_actions.c.action_id.desc()).limit(actions_max)
    if behind is not None:
        query = query.where(operator_actions.c.action_id < behind)
    return [RecordedAction(**row) for row in headquarters.execute(query).mappings()]
