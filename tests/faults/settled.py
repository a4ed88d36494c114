"""Wait until headquarters has nothing more to do: everything is read, let through, posted and answered."""

from functools import partial
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from tests.faults.evidence import READ_BY, read_topic
from tests.scenes import DEADLINE_SECONDS, Scene, wait_for

_OPEN: Final = """
    SELECT transaction_id, kind, status, reasons::text FROM retail_transactions WHERE status <> 'synchronized'
    UNION ALL SELECT statement_id, kind, status, reasons::text FROM statements WHERE status <> 'posted'
"""
_DUE: Final = "SELECT sequence FROM replies_due LIMIT 1"


def wait_until_settled(scene: Scene, *groups: str, let_through: bool = False) -> None:
    """Return when these groups have read all that there is, one after the other, and all is answered.

    `let_through`: also when every transaction is synchronized and every end of day posted. Fails when a worker dies, or
    when it takes too long.
    """
    for group in groups:
        _wait_until_read(scene, group)
    try:
        wait_for(partial(_is_done, scene, let_through=let_through), "sales orders, statements and answers")
    except AssertionError as error:
        raise AssertionError(f"{error}: {scene.query(_OPEN)[:5]}") from None


def _wait_until_read(scene: Scene, group: str) -> None:
    name = READ_BY[group]
    ends: dict[int, int] = {}
    for record in read_topic(scene.bootstrap_servers, scene.prefix, name):
        ends[record.partition] = record.offset + 1
    servers, own = scene.bootstrap_servers, scene.prefix + group
    consumer = Consumer({"bootstrap.servers": servers, "group.id": own, "enable.auto.commit": False})
    asked = [TopicPartition(scene.prefix + name, partition) for partition in ends]

    def is_read() -> bool:
        _check(scene)
        return all(one.offset >= ends[one.partition] for one in consumer.committed(asked, DEADLINE_SECONDS))

    try:
        wait_for(is_read, f"{group} to have read {name}")
    finally:
        consumer.close()


def _is_done(scene: Scene, *, let_through: bool) -> bool:
    _check(scene)
    return not scene.query(_DUE) and not (let_through and scene.query(_OPEN))


def _check(scene: Scene) -> None:
    for worker in scene.workers:
        worker.check()
