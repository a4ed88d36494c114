"""Headquarters erases a customer now and then, by an event of its own: orders, edits and backups may be on the way."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from tenten.producers import OpenChannel
from tenten.schemas.tables import channel
from tests.faults.journal import Writer
from tests.scenes import Scene
from tests.threads import Worker

PAUSE_SECONDS: Final = 10.0
"""Between two erasures, on average."""


@dataclass(slots=True, kw_only=True)
class Eraser:
    """Erases customers, seeded; remembers them."""

    tills: Mapping[str, OpenChannel]
    writer: Writer
    rng: random.Random
    erased: set[str] = field(default_factory=set)

    def work(self, stop: Event) -> None:
        """Erase one customer after another until `stop` is set. The broker may be away: it is not waited for."""
        while not stop.wait(self.rng.uniform(0, 2 * PAUSE_SECONDS)):
            for customer_id in self._somebody(self.tills[self.rng.choice([*self.tills])]):
                self.erased.add(customer_id)
                self.writer.send(self._event(customer_id))

    def _somebody(self, till: OpenChannel) -> list[str]:
        """A customer with an account number; nobody while the store's database is away."""
        table = channel.customers
        query = select(table.c.customer_id).where(table.c.account_number.is_not(None)).order_by(func.random()).limit(1)
        try:
            with till.reading() as connection:
                return [str(customer_id) for customer_id in connection.scalars(query)]
        except DBAPIError:
            return []

    def _event(self, customer_id: str) -> dict[str, object]:
        return {
            "customer_id": customer_id,
            "event_id": str(UUID(int=self.rng.getrandbits(128), version=4)),
            "channel_id": "headquarters",
            "kind": "ERASED",
            "occurred_at": datetime.now(UTC),
            "based_on_version": 0,
            "changed": [],
            "supersedes": [],
            "customer": None,
        }


@contextmanager
def customers_erased(scene: Scene, tills: Mapping[str, OpenChannel], seed: int) -> Iterator[Eraser]:
    """Customers are erased during the block; at its end the broker has acknowledged every erasure."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    eraser = Eraser(tills=tills, writer=writer, rng=random.Random(f"{seed} eraser"))
    worker = Worker(eraser.work)
    try:
        yield eraser
    finally:
        worker.stop()
    worker.check()
    writer.flush()
