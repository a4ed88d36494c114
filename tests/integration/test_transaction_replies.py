"""The reply outbox: replies to transactions are enqueued, then published in the same order."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine

from tenten.avro.wire import avro_schema, contract, encode, released_contract
from tenten.consumers.headquarters.transactions import reply_outbox
from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply, enqueue_replies, publish_replies
from tenten.kafka.client_config import producer_configuration
from tenten.schemas.messages import Reason, TransactionStatus
from tenten.schemas.topics import TRANSACTION_REPLIES
from tenten.sql.engine import open_database
from tests.faults.evidence import read_topic
from tests.scenes import Scene
from tests.waiting import wait_for

_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_LONG = Reason(field="customer_id", code="rejected", text="x" * 2_000)


def _reply(number: int) -> QueuedReply:
    """The reply with this number: two of three for a synchronized order, the third for a blocked one with reasons."""
    blocked = number % 3 == 0
    return QueuedReply(
        channel_id="houston" if number % 2 else "dallas",
        transaction_id=str(UUID(int=1000 - number)),
        status=TransactionStatus.BLOCKED if blocked else TransactionStatus.SYNCHRONIZED,
        sequence=number,
        input_partition=None if number % 5 == 0 else number % 4,
        input_offset=None if number % 5 == 0 else 10 * number,
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


@pytest.mark.parametrize(("limit", "value"), [("REPLIES_MAX", 3), ("_ROW_BYTES_MAX", 4_000)])
def test_replies_are_published_once_in_the_order_in_which_they_were_enqueued(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """With any number of replies in a row of the table, and any number of rows published together."""
    # given
    monkeypatch.setattr(reply_outbox, limit, value)
    enqueued = [_reply(number) for number in range(1, 21)]
    producer = Producer(producer_configuration(scene.settings))

    # when
    with _headquarters(scene) as engine:
        for start, end in ((0, 2), (2, 13), (13, 14), (14, 20)):
            with engine.begin() as headquarters:
                enqueue_replies(headquarters, enqueued[start:end], _NOON)
        in_rows = [row["answer_count"] for row in scene.query("SELECT answer_count FROM replies_due")]
        published = publish_replies(engine, producer, scene.settings.topic(TRANSACTION_REPLIES))

    # then
    assert sum(in_rows) == published == len(enqueued)
    assert len(in_rows) > 4
    assert scene.query("SELECT * FROM replies_due") == []
    received: list[dict[str, Any]] = []
    with scene.follow("transaction-replies", "TransactionReply") as replies:

        def all_received() -> bool:
            received.extend(reply for _, reply in replies.more() if reply is not None)
            return len(received) >= len(enqueued)

        wait_for(all_received, "replies")
    for channel_id in ("houston", "dallas"):
        actual = [reply for reply in received if reply["channel_id"] == channel_id]
        expected = [reply for reply in enqueued if reply.channel_id == channel_id]
        assert [(reply["transaction_id"], reply["sequence"]) for reply in actual] == [
            (reply.transaction_id, reply.sequence) for reply in expected
        ]
        assert [(reply["status"], reply["sales_order"], len(reply["reasons"])) for reply in actual] == [
            (reply.status, reply.sales_order, len(reply.reasons)) for reply in expected
        ]
        assert [(reply["input_partition"], reply["input_offset"]) for reply in actual] == [
            (reply.input_partition, reply.input_offset) for reply in expected
        ]
        assert {reply["answered_at"] for reply in actual} == {_NOON}


def test_queued_reply_of_another_release_is_published_unchanged(scene: Scene) -> None:
    """A `TransactionReply` with other fields, as an upgrade may find it in the outbox, is not taken for a `Reply`."""
    # given
    declaration = copy.deepcopy(contract("TransactionReply").json)
    declaration["fields"].append({"name": "note", "type": ["null", "string"], "doc": "A note.", "default": None})
    other = avro_schema(declaration)
    key = str(UUID(int=1))
    record = {"channel_id": "houston", "transaction_id": key, "status": "waiting", "sequence": 1, "answered_at": _NOON}
    payload = encode(other, record)
    insert = "INSERT INTO replies_due (answer_count, channel_ids, transaction_ids, payloads) VALUES (1, %s, %s, %s)"
    scene.query(insert, ["houston"], [key], [payload])
    producer = Producer(producer_configuration(scene.settings))
    # when
    with _headquarters(scene) as engine:
        assert publish_replies(engine, producer, scene.settings.topic(TRANSACTION_REPLIES)) == 1
    # then
    published = [record.value for record in read_topic(scene.bootstrap_servers, scene.prefix, "transaction-replies")]
    assert published == [payload]


def test_replies_that_0_1_0_has_enqueued_are_published_in_the_new_form(scene: Scene) -> None:
    """They lay in the outbox at the upgrade: they keep their order and content, before those of this release."""
    # given
    answers = [
        {"version": 1, "transaction_status": "blocked", "outcome": "SYNCHRONIZED", "reasons": [asdict(_LONG)]},
        {"version": 2, "transaction_status": "synchronized", "outcome": "SYNCHRONIZED", "sales_order": "SO-00000007"},
        {"version": 1, "transaction_status": "rejected", "outcome": "REJECTED", "account_number": "C-1"},
    ]
    ids = [str(UUID(int=number)) for number in (1, 1, 2)]
    payloads = [
        encode(
            released_contract("Reply"),
            {"channel_id": "houston", "event_id": key, "customer_id": str(UUID(int=0)), "answered_at": _NOON, **answer},
        )
        for key, answer in zip(ids, answers, strict=True)
    ]
    insert = "INSERT INTO replies_due (answer_count, channel_ids, transaction_ids, payloads) VALUES (3, %s, %s, %s)"
    scene.query(insert, ["houston"] * 3, ids, payloads)
    producer = Producer(producer_configuration(scene.settings))

    # when
    with _headquarters(scene) as engine:
        with engine.begin() as headquarters:
            enqueue_replies(headquarters, [_reply(1)], _NOON)
        assert publish_replies(engine, producer, scene.settings.topic(TRANSACTION_REPLIES)) == 4

    # then
    received: list[dict[str, Any]] = []
    with scene.follow("transaction-replies", "TransactionReply") as replies:

        def all_received() -> bool:
            received.extend(reply for _, reply in replies.more() if reply is not None)
            return len(received) >= 4

        wait_for(all_received, "replies")
    old = {"channel_id": "houston", "answered_at": _NOON, "input_partition": None, "input_offset": None}
    assert received[:3] == [
        {
            **old,
            "transaction_id": ids[0],
            "status": "blocked",
            "sales_order": None,
            "reasons": [asdict(_LONG)],
            "sequence": 1,
        },
        {
            **old,
            "transaction_id": ids[1],
            "status": "synchronized",
            "sales_order": "SO-00000007",
            "reasons": [],
            "sequence": 2,
        },
        {**old, "transaction_id": ids[2], "status": "rejected", "sales_order": None, "reasons": [], "sequence": 1},
    ]
    assert received[3]["transaction_id"] == _reply(1).transaction_id
    assert read_topic(scene.bootstrap_servers, scene.prefix, "channel-replies") == ()
