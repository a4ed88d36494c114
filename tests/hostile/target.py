"""Headquarters under attack: its real workers as processes, another store that must go on being served.

All stores have joined. The attacker has everything of one of them: its access to the topics and its key.
"""

import random
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from confluent_kafka import Producer

from tests.faults.evidence import Record, headers_of, read_topic
from tests.faults.journal import Operation
from tests.faults.processes import WorkerProcess
from tests.faults.traffic import Store
from tests.sales import Till, status
from tests.scenes import Scene
from tests.signed import Signature, record_of, record_of_sale
from tests.waiting import wait_for

SERVED_SECONDS_MAX: Final = 45.0
"""Another store is answered within 15 seconds, three times as long on a slow machine."""

_ACKNOWLEDGED_SECONDS_MAX: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Target:
    """The headquarters that all attacks share, and its stores."""

    scene: Scene
    workers: Sequence[WorkerProcess]
    attacker: Store
    """The events of the store whose access the attacker has."""
    attacker_till: Till
    other: Store
    """Another store of the same legal entity."""
    other_till: Till
    signatures: Mapping[str, Signature]
    """Of every store, by channel. The attacker has that of houston."""
    victim: dict[str, Any] = field(default_factory=dict)
    """The event that created the customer of the other store."""

    def event(self, event: dict[str, Any], by: str = "houston") -> Operation:
        """The record of a customer event, signed by this store."""
        return self.signatures[by].sign(record_of(event))

    def sale(self, sale: dict[str, Any], by: str = "houston") -> Operation:
        """The record of an order or sale, signed by this store, and so is the event inside."""
        signature, record = self.signatures[by], self.signatures[by].sign(record_of_sale(sale))
        key, event = str(sale["customer_id"]).encode(), sale["customer_event"]
        if event is None:
            return record
        code = signature.mac("async-customers", key, event)
        return replace(record, headers=(*record.headers, ("customer-event-mac", code)))

    def attack(self, *operations: Operation, partition: int = -1) -> None:
        """Write these records with a store's access to the topics, and set where they were written."""
        producer = Producer(
            {
                "bootstrap.servers": self.scene.bootstrap_servers,
                "partitioner": "murmur2_random",
                "message.max.bytes": 200_000_000,
                "queue.buffering.max.kbytes": 1_000_000,
                "compression.type": "zstd",
            }
        )
        errors: list[object] = []

        def delivered(operation: Operation, error: object, message: Any) -> None:
            if error is not None:
                errors.append(error)
            operation.partition, operation.offset = message.partition(), message.offset()

        for operation in operations:
            producer.produce(
                self.scene.prefix + operation.topic,
                operation.value,
                operation.key,
                partition=partition,
                headers=list(operation.headers),
                on_delivery=partial(delivered, operation),
            )
        assert producer.flush(_ACKNOWLEDGED_SECONDS_MAX) == 0
        assert errors == []

    def ask(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Send events as their stores do, and return headquarters' reply to each."""
        self.attack(*(self.event(event, event["channel_id"]) for event in events))
        return self.scene.replies(*events)

    def answered(self, ids: Collection[str]) -> set[str]:
        """Those of these events and transactions that headquarters has answered."""
        records = (*self.read("channel-replies"), *self.read("transaction-replies"))
        return {headers_of(record)["id"] for record in records}.intersection(ids)

    def dead_letter(self, operation: Operation) -> Record:
        """The dead letter of an attacker's record; waits for it."""
        found: list[Record] = []

        def is_dead_letter() -> bool:
            self._check()
            letters = self.read(f"{operation.topic}.dlq")
            found[:] = [letter for letter in letters if _origin(letter) == (operation.partition, operation.offset)]
            return bool(found)

        wait_for(is_dead_letter, "a dead letter", SERVED_SECONDS_MAX)
        return found[0]

    def assert_unharmed(self) -> None:
        """The other store's new customer and order are answered, its older customer is what it was."""
        event = self.other.create()
        order = self.other_till.order(event)
        self.attack(self.event(event, "dallas"), self.sale(order, "dallas"))
        ordered = lambda: status(self.scene, order).get("status") == "synchronized"  # noqa: E731
        wait_for(ordered, "the order of another store", SERVED_SECONDS_MAX, self._check)
        (reply,) = self.scene.replies(event)
        assert reply["outcome"] == "SYNCHRONIZED"
        assert self.snapshots() == 1
        (row,) = self.scene.query(
            "SELECT version, last_name, erased_at FROM customers WHERE customer_id = %s", self.victim["customer_id"]
        )
        assert row == {"version": 1, "last_name": self.victim["customer"]["last_name"], "erased_at": None}

    def customers(self) -> dict[str, tuple[str, str, int]]:
        """By customer id: last name, title and version of all customers."""
        rows = self.scene.query("SELECT customer_id::text, last_name, title, version FROM customers")
        return {row["customer_id"]: (row["last_name"], row["title"], row["version"]) for row in rows}

    def log(self) -> list[dict[str, Any]]:
        """Id, channel and outcome of all events but the victim's."""
        rows = self.scene.query("SELECT event_id::text, channel_id, outcome FROM synchronization_log")
        return [row for row in rows if row["event_id"] != self.victim["event_id"]]

    def snapshots(self) -> int:
        """How often the other store's older customer was sent to all stores."""
        return sum(record.key == self.victim["customer_id"].encode() for record in self.read("customers"))

    def read(self, topic: str) -> list[Record]:
        """Every record of a topic."""
        return list(read_topic(self.scene.bootstrap_servers, self.scene.prefix, topic))

    def _check(self) -> None:
        for worker in self.workers:
            worker.check()


def _origin(letter: Record) -> tuple[int, int]:
    headers = headers_of(letter)
    return int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])


def target_of(scene: Scene, workers: Sequence[WorkerProcess], signatures: Mapping[str, Signature]) -> Target:
    """The target, with a customer of the other store."""
    target = Target(
        scene=scene,
        workers=workers,
        signatures=signatures,
        attacker=Store(channel_id="houston", legal_entity="usrt", rng=random.Random(66)),
        attacker_till=Till(channel_id="houston", rng=random.Random(67)),
        other=Store(channel_id="dallas", legal_entity="usrt", rng=random.Random(68)),
        other_till=Till(channel_id="dallas", rng=random.Random(69)),
    )
    target.victim = target.other.create()
    (reply,) = target.ask(target.victim)
    assert reply["outcome"] == "SYNCHRONIZED"
    return target


def text(characters: int) -> str:
    """A text that cannot be compressed much."""
    return "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=characters))


def with_legal_entity(event: dict[str, Any], name: str) -> dict[str, Any]:
    """The event with its customer in this legal entity."""
    return event | {"customer": event["customer"] | {"legal_entity": name}}
