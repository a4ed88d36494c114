"""The thread that reads `joins`: rubbish of others stops nothing, and a store that joins gets its answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine, text

from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.headquarters.customers import join_reader
from tenten.consumers.headquarters.customers.join_reader import REQUESTS_MAX, JoinReader
from tenten.kafka.client_config import producer_configuration
from tenten.schemas.messages import JoinRequest, to_avro
from tenten.sql.engine import open_database
from tests.integration.test_join_requests import Headquarters, request
from tests.scenes import Scene
from tests.waiting import wait_for


@pytest.fixture
def hq(scene: Scene) -> Iterator[Headquarters]:
    """Headquarters of the scene."""
    engine = open_database(scene.url)
    yield Headquarters(engine=engine, registry=None)  # type: ignore[arg-type]  # not needed here
    engine.dispose()


@contextmanager
def reading(scene: Scene, engine: Engine) -> Iterator[None]:
    """The thread runs during the block."""
    with JoinReader(scene.settings, engine, WriterSchemas()):
        yield


def write(scene: Scene, *records: tuple[bytes | None, bytes | None]) -> None:
    """Write records to `joins`, as anyone with a store's credentials can."""
    # The topic's limit counts for a batch of the client.
    producer = Producer(producer_configuration(scene.settings, **{"batch.num.messages": 20}))
    errors: list[object] = []
    for key, value in records:
        on_delivery = lambda error, _: errors.append(error)  # noqa: E731 - one line
        producer.produce(f"{scene.settings.prefix}joins", value, key, on_delivery=on_delivery)
    assert producer.flush(60) == 0
    assert errors == [None] * len(records)


def record(asked: JoinRequest) -> tuple[bytes, bytes]:
    """A request as a record."""
    return asked.channel_id.encode(), encode(contract("JoinRequest"), to_avro(asked))


def position(engine: Engine) -> int:
    """The offset up to which `joins` is processed."""
    with engine.connect() as headquarters:
        found = headquarters.scalar(text("SELECT sum(next_offset) FROM positions WHERE consumer_group = 'joins'"))
    return int(found or 0)


def answers(engine: Engine) -> int:
    """The number of stored answers."""
    with engine.connect() as headquarters:
        return int(headquarters.scalar(text("SELECT count(*) FROM join_answers")) or 0)


def test_rubbish_is_skipped_and_a_store_joins(
    scene: Scene, hq: Headquarters, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes, wrong keys, impossible fields, and thousands of requests without proof: a few answers, one log event."""
    # given
    monkeypatch.setattr(join_reader, "_PAUSE_SECONDS", 0.1)
    secret = hq.token()
    asked = request(secret)
    key, value = record(asked)
    rubbish = [
        (None, None),
        (b"houston", None),
        (b"houston", b""),
        (b"houston", os.urandom(1_000)),
        (b"seattle", value),
        (key, value[:-1]),
        (key, value + b"x"),
        record(request(secret, b"short")),
        record(request(secret, bytes(32))),
        record(request(os.urandom(32), channel_id="x" * 1_000)),
        record(request(os.urandom(32), channel_id="a\0b")),
    ]
    flood = [record(request(os.urandom(32))) for _ in range(2 * REQUESTS_MAX)]
    write(scene, *rubbish, *flood, (key, value), *rubbish)
    # when
    with reading(scene, hq.engine):
        wait_for(lambda: position(hq.engine) == 2 * len(rubbish) + len(flood) + 1, "all records", 60)
    # then
    assert hq.judge(asked) == ["joined"]
    assert hq.used(secret) == (True, 0)
    assert answers(hq.engine) <= 5
    assert capsys.readouterr().out.count("join_requests_refused") == 1
    # when another thread begins where this one ended
    again = request(secret, asked.public_key)
    write(scene, record(again))
    with reading(scene, hq.engine):
        wait_for(lambda: position(hq.engine) == 2 * len(rubbish) + len(flood) + 2, "the new record")
    # then
    assert hq.judge(again, later=60) == ["joined"]
