"""The record of what operators do at the dashboard."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from tenten.runtime.errors import TentenError
from tenten.schemas.tables.headquarters import operator_actions
from tenten.sql.engine import open_database
from tenten.web.dashboard.access import Role, Visitor
from tenten.web.dashboard.actions import Action, ActionLog, RecordedAction, list_actions

GRACE = Visitor(role=Role.OPERATOR, name="Grace", via="token", form_key="")


@pytest.fixture
def engine(headquarters_url: str) -> Iterator[Engine]:
    """Headquarters' database."""
    engine = open_database(headquarters_url)
    yield engine
    engine.dispose()


def rows(engine: Engine) -> list[RecordedAction]:
    """The record, the newest first."""
    with engine.begin() as headquarters:
        return list_actions(headquarters, 100)


def test_action_is_recorded_before_it_happens_with_its_outcome_afterwards(engine: Engine) -> None:
    """Also one that fails; one whose process ends meanwhile has no outcome."""
    # given
    log = ActionLog(engine=engine, days=400)
    # when
    with log.recorded(GRACE, Action.SUSPEND, "dallas", "stolen"):
        during = rows(engine)
    with pytest.raises(TentenError), log.recorded(GRACE, Action.REPLAY, "0/17"):
        raise TentenError("no")
    # then
    assert [(row.action, row.subject, row.reason, row.outcome) for row in during] == [
        ("suspend_channel", "dallas", "stolen", None)
    ]
    assert [(row.text, row.operator, row.via, row.outcome) for row in rows(engine)] == [
        ("Replayed a dead letter", "Grace", "token", "failed"),
        ("Suspended a channel", "Grace", "token", "done"),
    ]


def test_old_actions_are_deleted_with_the_next_one(engine: Engine) -> None:
    """Those that are older than the settings say, and no others."""
    # given
    log = ActionLog(engine=engine, days=30)
    for days in (31, 29):
        with log.recorded(GRACE, Action.RESUME, f"{days} days"):
            pass
        with engine.begin() as headquarters:
            headquarters.execute(
                update(operator_actions)
                .where(operator_actions.c.subject == f"{days} days")
                .values(acted_at=datetime.now(UTC) - timedelta(days=days))
            )
    # when
    with log.recorded(GRACE, Action.RESUME, "now"):
        pass
    # then
    assert [row.subject for row in rows(engine)] == ["now", "29 days"]


def test_action_that_cannot_be_recorded_does_not_happen(engine: Engine) -> None:
    """Such as without the table."""
    # given
    log = ActionLog(engine=engine, days=400)
    with engine.begin() as headquarters:
        headquarters.exec_driver_sql("DROP TABLE operator_actions")
    # when
    happened = []
    with pytest.raises(Exception, match="operator_actions"), log.recorded(GRACE, Action.DISCARD, "0/17"):
        happened.append("discarded")
    # then
    assert happened == []
