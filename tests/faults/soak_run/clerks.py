"""Clerks: one in each store creates and edits customers, takes orders, sells and closes days, whatever happens around.

A call that did not return is repeated with the same ids, as the interface promises, so each is done once. In the end
the books of the clerks say what headquarters and the stores must have.
"""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from threading import Event
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from tenten.producers import (
    Item,
    NewAddress,
    OpenChannel,
    close_day,
    create_customer,
    edit_customer,
    record_order,
    record_sale,
)
from tenten.runtime.errors import DatabaseRefused, NoSuchCustomer
from tenten.schemas.tables import channel
from tests.threads import Worker

FIELD_OF_STORE: Final[Mapping[str, str]] = {
    "houston": "title",
    "dallas": "middle_name",
    "munich": "title",
    "vienna": "middle_name",
}
"""The only field that a store edits, and no other store of its legal entity: its last value must be everywhere."""

LAST_NAME: Final = "Zweihundertwasser"
"""Of every customer; in no log."""

PAUSE_SECONDS: Final = 0.25
"""Of a clerk between two calls, on average."""

_DEADLINE_SECONDS: Final = 300.0
"""How long a store's database may be away."""

_RETRY_SECONDS: Final = 0.3
_LOOK_EVERY: Final = 20
"""After so many calls a clerk looks for customers of other stores."""

_TEA: Final = Item(sku="TEA", quantity=Decimal(3), price=Decimal("1.115"))
_RETURNED_CUP: Final = Item(sku="CUP", quantity=Decimal(-1), price=Decimal("4.50"))

Answer = TypeVar("Answer")


@dataclass(slots=True, kw_only=True)
class Books:
    """What a clerk has done, for certain."""

    customers: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By customer: the last values that this clerk has entered."""
    orders: list[str] = field(default_factory=list)
    sales: list[str] = field(default_factory=list)
    """The ids of orders and of cash-and-carry sales."""
    calls: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    """Calls that failed because the store's database was away, and were repeated."""


@dataclass(slots=True, kw_only=True)
class Clerk:
    """The clerk of one store, seeded."""

    till: OpenChannel
    rng: random.Random
    books: Books = field(default_factory=Books)
    known: list[str] = field(default_factory=list)
    """Customers, of this store and of others."""

    def work(self, stop: Event) -> None:
        """Do one thing after another until `stop` is set; then close the day."""
        while not stop.wait(self.rng.uniform(0, 2 * PAUSE_SECONDS)):
            (kind,) = self.rng.choices([*_KINDS], [*_KINDS.values()])
            with suppress(NoSuchCustomer):
                # Headquarters may have erased the customer.
                self._do(kind if self.known else "create")
            if self.books.calls.total() % _LOOK_EVERY == 0:
                self._look()
        self._do("close")

    def _do(self, kind: str) -> None:
        match kind:
            case "create":
                self._create()
            case "edit":
                self._edit(self.rng.choice(self.known))
            case "order":
                self._order(self.rng.choice(self.known))
            case "sell":
                self._sell(self.rng.choice([None, *self.known[-5:]]))
            case _:
                self._repeated(lambda: close_day(self.till))
        self.books.calls[kind] += 1

    def _create(self) -> None:
        names = {"first_name": f"Ada {self.rng.randrange(10**9)}", "last_name": LAST_NAME}
        address = NewAddress(street=f"{self.rng.randrange(10**6)} Main Street", city="Houston", country="US")
        customer_id = self._guid()
        self._repeated(
            partial(create_customer, self.till, customer_id=customer_id, add_addresses=[address], **names)  # type: ignore[arg-type]
        )
        self.known.append(customer_id)
        self.books.customers[customer_id].update(names)

    def _edit(self, customer_id: str) -> None:
        name, value = FIELD_OF_STORE[self.till.name], f"No. {self.rng.randrange(10**9)}"
        event_id = self._guid()
        self._repeated(partial(edit_customer, self.till, customer_id, event_id=event_id, **{name: value}))  # type: ignore[arg-type]
        self.books.customers[customer_id][name] = value

    def _order(self, customer_id: str) -> None:
        order = partial(record_order, self.till, lines=[_TEA], customer_id=customer_id, transaction_id=self._guid())
        self.books.orders.append(self._repeated(order).transaction_id)

    def _sell(self, customer_id: str | None) -> None:
        line = _RETURNED_CUP if self.rng.random() < 0.1 else _TEA
        sale = partial(record_sale, self.till, lines=[line], customer_id=customer_id, transaction_id=self._guid())
        self.books.sales.append(self._repeated(sale).transaction_id)

    def _look(self) -> None:
        """Get to know some customers, whoever has created them."""
        table = channel.customers
        some = select(table.c.customer_id).where(table.c.account_number.is_not(None)).order_by(func.random()).limit(10)

        def find() -> list[str]:
            with self.till.reading() as connection:
                return [str(customer_id) for customer_id in connection.scalars(some)]

        self.known = self.known[-50:] + self._repeated(find)

    def _repeated(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call, which is repeated while the store's database is away."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            try:
                return call()
            except (DatabaseRefused, DBAPIError):
                if time.monotonic() > deadline:
                    raise
                self.books.repeated += 1
                time.sleep(_RETRY_SECONDS)

    def _guid(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=4))


_KINDS: Final = {"create": 30, "edit": 30, "order": 15, "sell": 22, "close": 3}
"""What clerks do, with the shares in percent."""


@contextmanager
def clerks_working(tills: Mapping[str, OpenChannel], seed: int) -> Iterator[dict[str, Books]]:
    """A clerk works in each store during the block; their books, by store. Raises: the first failure of a clerk."""
    clerks = {name: Clerk(till=till, rng=random.Random(f"{seed} {name}")) for name, till in tills.items()}
    workers = [Worker(clerk.work) for clerk in clerks.values()]
    try:
        yield {name: clerk.books for name, clerk in clerks.items()}
    finally:
        for worker in workers:
            worker.stop()
    for worker in workers:
        worker.check()
