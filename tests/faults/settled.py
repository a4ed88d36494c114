"""Wait until headquarters is idle: everything is read, released, posted and replied to."""

import time
from functools import partial
from typing import Final

import psycopg
from confluent_kafka import Consumer, TopicPartition

from tests.faults.evidence import READ_BY, read_topic
from tests.scenes import DEADLINE_SECONDS, Scene
from tests.waiting import wait_for

_PAUSE_SECONDS: Final = 0.05
"""Between two looks, so that they do not slow down what they wait for."""

_OPEN: Final = """
    SELECT transaction_id, kind, status, reasons::text FROM retail_transactions WHERE status <> 'synchronized'
    UNION ALL SELECT statement_id, kind, status, reasons::text FROM statements WHERE status <> 'posted'
"""
_UNSENT: Final = "SELECT sequence FROM replies_due LIMIT 1"


def wait_until_settled(scene: Scene, *groups: str, released: bool = False) -> None:
    """Return when these groups have read all records, one after the other, and all replies are sent.

    `released`: also when every transaction is synchronized and every end of day posted. Fails when a worker dies, or
    when it takes too long.
    """
    for group in groups:
        wait_until_read(scene, group)
    with psycopg.connect(scene.url, autocommit=True) as connection:
        try:
            wait_for(partial(_is_settled, scene, connection, released=released), "sales orders, statements and replies")
        except AssertionError as error:
            raise AssertionError(f"{error}: {scene.query(_OPEN)[:5]}") from None


def wait_until_read(scene: Scene, group: str) -> None:
    """Return when this group has committed the offsets of all records that its topic has now."""
    name = READ_BY[group]
    ends: dict[int, int] = {}
    for record in read_topic(scene.bootstrap_servers, scene.prefix, name):
        ends[record.partition] = record.offset + 1
    servers, own = scene.bootstrap_servers, scene.prefix + group
    consumer = Consumer({"bootstrap.servers": servers, "group.id": own, "enable.auto.commit": False})
    partitions = [TopicPartition(scene.prefix + name, partition) for partition in ends]

    def is_read() -> bool:
        _check(scene)
        committed = consumer.committed(partitions, DEADLINE_SECONDS)
        return all(position.offset >= ends[position.partition] for position in committed)

    try:
        wait_for(is_read, f"{group} to have read {name}")
    finally:
        consumer.close()


def _is_settled(scene: Scene, connection: psycopg.Connection, *, released: bool) -> bool:
    _check(scene)
    if connection.execute(_UNSENT).fetchone() is not None:
        return False
    return not released or connection.execute(_OPEN).fetchone() is None


def _check(scene: Scene) -> None:
    time.sleep(_PAUSE_SECONDS)
    for worker in scene.workers:
        worker.check()
