"""Answers to transactions: written into headquarters' database, then sent in the same order."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine

from tenten.consumers.headquarters.transactions import reply_outbox as answers
from tenten.consumers.headquarters.transactions.reply_outbox import Answer, send_answers, write_answers
from tenten.kafka.client_config import producer_configuration
from tenten.schemas.messages import Reason, TransactionStatus
from tenten.schemas.topics import CHANNEL_REPLIES
from tenten.sql.engine import open_database
from tests.scenes import Scene, set_scene, wait_for

_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_LONG = Reason(field="customer_id", code="rejected", text="x" * 2_000)


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)


def _answer(number: int) -> Answer:
    """The answer of this number: two of three say that an order is synchronized, the third why one is blocked."""
    blocked = number % 3 == 0
    return Answer(
        channel_id="houston" if number % 2 else "dallas",
        transaction_id=str(UUID(int=1000 - number)),
        customer_id=None,
        status=TransactionStatus.BLOCKED if blocked else TransactionStatus.SYNCHRONIZED,
        number=number,
        reasons=(_LONG,) if blocked else (),
        sales_order=None if blocked else f"SO-{number:08}",
    )


@contextmanager
def _headquarters(scene: Scene) -> Iterator[Engine]:
    engine = open_database(scene.url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.mark.parametrize(("limit", "value"), [("SEND_MAX", 3), ("_ROW_BYTES_MAX", 4_000)])
def test_answers_are_sent_once_in_the_order_in_which_they_were_written(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """However many lie in a row of the table, and however many rows are sent together."""
    # given
    monkeypatch.setattr(answers, limit, value)
    written = [_answer(number) for number in range(1, 21)]
    producer = Producer(producer_configuration(scene.settings))

    # when
    with _headquarters(scene) as engine:
        for start, end in ((0, 2), (2, 13), (13, 14), (14, 20)):
            with engine.begin() as headquarters:
                write_answers(headquarters, written[start:end], _NOON)
        in_rows = [row["answer_count"] for row in scene.query("SELECT answer_count FROM replies_due")]
        sent = send_answers(engine, producer, scene.settings.topic(CHANNEL_REPLIES))

    # then
    assert sum(in_rows) == sent == len(written)
    assert len(in_rows) > 4
    assert scene.query("SELECT * FROM replies_due") == []
    told: list[dict[str, Any]] = []
    with scene.follow("channel-replies", "Reply") as replies:

        def all_there() -> bool:
            told.extend(reply for _, reply in replies.more() if reply is not None)
            return len(told) >= len(written)

        wait_for(all_there, "answers")
    for channel_id in ("houston", "dallas"):
        ours = [one for one in told if one["channel_id"] == channel_id]
        wanted = [one for one in written if one.channel_id == channel_id]
        assert [(one["event_id"], one["version"]) for one in ours] == [
            (one.transaction_id, one.number) for one in wanted
        ]
        assert [(one["sales_order"], len(one["reasons"])) for one in ours] == [
            (one.sales_order, len(one.reasons)) for one in wanted
        ]
