"""Traces that headquarters' database keeps: of transactions, for their replies, and of events that were held."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import Engine, insert, select

from tenten.consumers.headquarters.traces import BatchTraces
from tenten.consumers.headquarters.transactions.transaction_traces import KEPT, note_traces, traces_of
from tenten.schemas.tables.headquarters import held_events, transaction_traces
from tenten.sql.migrations import upgrade_headquarters
from tests.conftest import NewDatabase
from tests.opened_databases import opened

TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER: Final = "00-0af7651916cd43dd8448eb211c80319c-c8be6b7169203331-01"
FIRST, SECOND, THIRD = (f"0190aaaa-0000-7000-8000-00000000000{number}" for number in (1, 2, 3))
NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(new_database: NewDatabase) -> Iterator[Engine]:
    """Headquarters' database."""
    with opened(new_database()) as engine:
        upgrade_headquarters(engine)
        yield engine


def test_traces_of_transactions_are_kept_for_a_day_and_the_first_one_counts(engine: Engine) -> None:
    """Replies to a transaction find its trace; one that was received again keeps it; what is no id is left out."""
    # when
    note_traces(engine, {FIRST: TRACE, "rubbish": TRACE}, NOW)
    note_traces(engine, {FIRST: OTHER, SECOND: OTHER}, NOW + timedelta(minutes=1))

    # then
    with engine.begin() as headquarters:
        assert traces_of(headquarters, [FIRST, SECOND, THIRD]) == {FIRST: TRACE, SECOND: OTHER}

    # when
    note_traces(engine, {THIRD: TRACE}, NOW + KEPT + timedelta(seconds=30))

    # then
    with engine.begin() as headquarters:
        assert traces_of(headquarters, [FIRST, SECOND, THIRD]) == {SECOND: OTHER, THIRD: TRACE}


def test_nothing_is_written_where_no_transaction_is_traced(engine: Engine) -> None:
    """Such a batch costs no transaction of the database."""
    # when
    note_traces(engine, {}, NOW)

    # then
    with engine.begin() as headquarters:
        assert traces_of(headquarters, [FIRST]) == {}
        assert headquarters.execute(select(transaction_traces)).all() == []


def test_event_that_was_held_is_answered_in_its_own_trace(engine: Engine) -> None:
    """Its record has kept its headers; an answer to another event of the batch has none."""
    # given
    kept = [["id", FIRST.encode().hex()], ["type", None], ["traceparent", TRACE.encode().hex()]]
    row = {
        "event_id": FIRST,
        "customer_id": FIRST,
        "channel_id": "houston",
        "reasons": [],
        "code": "unknown_channel",
        "subject": "houston",
        "topic": "async-customers",
        "partition": 0,
        "offset": 0,
        "value": b"",
        "headers": kept,
        "bytes": 1,
        "held_at": NOW,
    }
    with engine.begin() as headquarters:
        held_id = headquarters.scalar(insert(held_events).values(row).returning(held_events.c.held_id))
    assert held_id is not None

    # when
    traces = BatchTraces("judge", "async-customers", [])
    traces.add_held(engine, [held_id])

    # then
    assert traces.carried([("id", FIRST.encode()), ("type", b"Reply")])[-1] == ("traceparent", TRACE)
    other = [("id", SECOND.encode()), ("type", b"Reply")]
    assert traces.carried(list(other)) == other
