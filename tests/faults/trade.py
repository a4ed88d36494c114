"""Sales of stores, seeded: with customers that arrive only inside orders, and every kind of error."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from tests.faults.journal import Operation, Writer
from tests.faults.traffic import Event, Store
from tests.sales import Till, Transaction
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene

ROUNDS: Final = 30
"""Choices of each shop in one `trade`; about two records each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One record that a channel sends: a customer event, a transaction, or neither."""

    event: Event | None = None
    transaction: Transaction | None = None


@dataclass(slots=True, kw_only=True)
class Shop:
    """One channel that sells; remembers the corrections that it has not sent yet."""

    store: Store
    till: Till
    rng: random.Random
    sent: list[Transaction] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """Of customers that are sent only inside orders."""
    known: list[Event] = field(default_factory=list)
    """Of customers that were sent on their own."""
    owed: list[Step] = field(default_factory=list)
    """Corrections of earlier records."""

    def steps(self) -> Iterator[Step]:
        """The next records, of one kind."""
        (kind,) = self.rng.choices([*_KINDS], [*_KINDS.values()])
        for step in _some(self, kind):
            if step.transaction is not None:
                self.sent.append(step.transaction)
            yield step

    def heal(self) -> Iterator[Step]:
        """All corrections, and the end of the day."""
        yield from self.owed
        self.owed.clear()
        yield Step(transaction=self.till.end_of_day())


def shops(rng: random.Random) -> list[Shop]:
    """One of each channel, each with a seed of its own."""
    return [
        Shop(
            store=Store(channel_id=name, legal_entity=entity, rng=rng),
            till=Till(channel_id=name, currency="EUR" if entity == "demf" else "USD", rng=rng),
            rng=rng,
        )
        for name, entity in LEGAL_ENTITY_BY_CHANNEL.items()
    ]


def trade(sellers: Sequence[Shop], rounds: int = ROUNDS, *, closes: bool = True) -> list[Step]:
    """The records of these shops, by turns; by default everything is corrected and closed at the end."""
    steps = [step for _ in range(rounds) for shop in sellers for step in shop.steps()]
    return steps + ([step for shop in sellers for step in shop.heal()] if closes else [])


def send_steps(scene: Scene, steps: Sequence[Step]) -> None:
    """Write them in this order, and wait for the broker's acknowledgement."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    for step in steps:
        if step.event is not None:
            writer.send(step.event)
        elif step.transaction is not None:
            writer.sell(step.transaction)
        else:
            writer.write(Operation(topic="retail-transactions", key=b"houston", value=b"no transaction"))
    writer.flush()


_KINDS: Final = {
    "customer orders": 20,
    "customer buys": 14,
    "customer comes again": 10,
    "known customer orders": 6,
    "anonymous order": 5,
    "anonymous sale": 10,
    "again": 10,
    "customer comes late": 6,
    "wrong customer": 8,
    "wrong sum": 6,
    "erased": 3,
    "id of another channel": 2,
    "no transaction": 2,
    "close": 4,
    "close too early": 2,
    "forget": 2,
}
"""The kinds of trade, with their shares in percent."""


def _some(shop: Shop, kind: str) -> Iterator[Step]:
    till = shop.till
    match kind:
        case "customer orders":
            event = shop.store.create()
            shop.events.append(event)
            yield Step(transaction=till.order(event, delivery_address=_address(event)))
        case "customer buys":
            shop.events.append(shop.store.create())
            yield Step(transaction=_sale(shop, shop.events[-1]))
        case "customer comes again":
            event = shop.rng.choice(shop.events or [shop.store.create()])
            yield Step(transaction=till.order(event))
            yield Step(transaction=_sale(shop, event))
        case "known customer orders":
            shop.known.append(shop.store.create())
            yield Step(event=shop.known[-1])
            yield Step(transaction=till.order(customer_id=shop.rng.choice(shop.known)["customer_id"]))
        case "anonymous order":
            yield Step(transaction=till.order())
        case "anonymous sale":
            yield Step(transaction=_sale(shop, None))
        case "again" if shop.sent:
            yield Step(transaction=shop.rng.choice(shop.sent))
        case "no transaction":
            yield Step()
        case _:
            yield from _wrong(shop, kind)


def _wrong(shop: Shop, kind: str) -> Iterator[Step]:
    """Errors that are corrected at the end, at the latest."""
    till = shop.till
    match kind:
        case "customer comes late":
            event = shop.store.create()
            shop.owed.append(Step(event=event))
            yield Step(transaction=till.order(customer_id=event["customer_id"]))
        case "wrong customer":
            yield from _wrong_customer(shop)
        case "wrong sum":
            sold = till.order() if shop.rng.random() < 0.5 else till.sale()
            shop.owed.append(Step(transaction=sold))
            yield Step(transaction=sold | {"total": sold["total"] + 1})
        case "erased":
            event = shop.store.create()
            yield Step(event=event)
            yield Step(event=shop.store.erase(event["customer_id"]))
            yield Step(transaction=till.order(event))
        case "id of another channel" if till.channel_id in _SISTERS:
            order = till.order()
            ways = [Step(transaction=order), Step(transaction=order | {"channel_id": _SISTERS[till.channel_id]})]
            yield from shop.rng.sample(ways, 2)
        case "close":
            yield Step(transaction=till.end_of_day())
        case "close too early":
            late = _sale(shop, None)
            yield Step(transaction=till.end_of_day())
            yield Step(transaction=late)
        case "forget":
            till.open = till.open[:-1]
            yield Step(transaction=till.end_of_day())


_SISTERS: Final = {"houston": "dallas", "dallas": "houston"}
"""Channels of one legal entity."""


def _wrong_customer(shop: Shop) -> Iterator[Step]:
    """A customer that headquarters rejects: an order and a sale. The correction is sent alone or inside an order."""
    store = shop.store
    wrong = store.create(first_name="", last_name=" ")
    customer_id = wrong["customer_id"]
    yield Step(transaction=shop.till.order(wrong))
    yield Step(transaction=_sale(shop, wrong))
    right = store.edit(customer_id, store.unsettled[customer_id], last_name="Lee", addresses=[store.address()])
    ways = [Step(event=right), Step(transaction=shop.till.order(right, delivery_address=_address(right)))]
    shop.owed.append(shop.rng.choice(ways))


def _sale(shop: Shop, event: Event | None) -> Transaction:
    line = shop.rng.choice([("CUP", "1", "4.50"), ("CUP", "-1", "4.50"), ("TEA", "3", "1.115"), ("MAP", "2", "0.005")])
    sold = shop.till.sale(line, event=event)
    if shop.rng.random() < 0.3:
        # Changes the till's record, too.
        part = Decimal("0.01")
        sold["payments"] = [
            {"method": "CARD", "amount": part},
            {"method": "CASH", "amount": sold["total"] - part},
        ]
    return sold


def _address(event: Event) -> dict[str, Any]:
    at_home = event["customer"]["addresses"][0]
    texts = dict.fromkeys(("name", "county", "state", "postal_code"), "")
    return texts | {name: at_home[name] for name in ("address_id", "street", "city", "country")}
