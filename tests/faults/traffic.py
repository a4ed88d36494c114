"""Events as stores send them: seeded, distinct, and with every kind of error."""

import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

Event = dict[str, Any]

_MORNING: Final = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Store:
    """One channel; remembers its customers as last written, and its unsettled events."""

    channel_id: str
    legal_entity: str
    rng: random.Random
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    unsettled: dict[str, list[Event]] = field(default_factory=dict)
    _minutes: int = 0

    def guid(self) -> str:
        """A new one, the same for the same seed."""
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def create(self, customer_id: str | None = None, **fields: Any) -> Event:
        """A new customer with an address and an e-mail address, and with the given fields."""
        state = {
            "legal_entity": self.legal_entity,
            "first_name": f"First {self.rng.randrange(10**9)}",
            "last_name": f"Last {self.rng.randrange(10**9)}",
            "addresses": [self.address()],
            "contacts": [self.email()],
            "affiliations": ["staff"],
            **fields,
        }
        parts = ("addresses", "contacts", "affiliations", "attributes")
        changed = [name for name in state if name not in ("legal_entity", *parts)]
        changed += [f"addresses/{member['address_id']}" for member in state["addresses"]]
        changed += [f"contacts/{member['contact_id']}" for member in state["contacts"]]
        changed += [f"affiliations/{name}" for name in state["affiliations"]]
        changed += [f"attributes/{member['name']}" for member in state.get("attributes", [])]
        return self._event(customer_id or self.guid(), "CREATED", changed, state)

    def edit(self, customer_id: str, supersedes: Sequence[Event] = (), **fields: Any) -> Event:
        """An edit of these fields that supersedes the given events."""
        state = deepcopy(self.customers[customer_id]) | fields
        changed = [name for name in fields if name not in ("addresses", "contacts", "affiliations", "attributes")]
        for part, key in (("addresses", "address_id"), ("contacts", "contact_id"), ("attributes", "name")):
            changed += _changed_members(part, key, self.customers[customer_id].get(part, []), fields.get(part))
        had, has = set(self.customers[customer_id].get("affiliations", [])), fields.get("affiliations")
        changed += [f"affiliations/{name}" for name in sorted(had ^ set(had if has is None else has))]
        brought = [{"event_id": member["event_id"], "changed": member["changed"]} for member in supersedes]
        return self._event(customer_id, "EDITED", changed, state, brought)

    def erase(self, customer_id: str) -> Event:
        """The erasure of a customer."""
        return self._event(customer_id, "ERASED", [], None)

    def touch(self, customer_id: str) -> Event:
        """A request of headquarters to publish the snapshot again."""
        return self._event(customer_id, "TOUCHED", [], None) | {"channel_id": "headquarters"}

    def adopt(self, store: "Store", customer_id: str) -> None:
        """Copy a customer of another store."""
        self.customers.setdefault(customer_id, deepcopy(store.customers[customer_id]))
        self.unsettled.setdefault(customer_id, [])

    def address(self, country: str = "US") -> dict[str, Any]:
        """An address of its own."""
        return {
            "address_id": self.guid(),
            "purpose": "HOME",
            "street": f"{self.rng.randrange(10**6)} Main Street",
            "city": "Houston",
            "country": country,
            "updated_at": self._now(),
        }

    def email(self) -> dict[str, Any]:
        """An e-mail address of its own."""
        return {"contact_id": self.guid(), "kind": "EMAIL", "value": f"a{self.rng.randrange(10**9)}@example.com"}

    def _event(
        self,
        customer_id: str,
        kind: str,
        changed: list[str],
        state: dict[str, Any] | None,
        supersedes: list[dict[str, Any]] | None = None,
    ) -> Event:
        event = {
            "customer_id": customer_id,
            "event_id": self.guid(),
            "channel_id": self.channel_id,
            "kind": kind,
            "occurred_at": self._now(),
            "based_on_version": 0,
            "changed": changed,
            "supersedes": supersedes or [],
            "customer": state,
        }
        if state is not None:
            self.customers[customer_id] = deepcopy(state)
            self.unsettled.setdefault(customer_id, []).append(event)
        return event

    def _now(self) -> datetime:
        self._minutes += 1
        return _MORNING + timedelta(minutes=self._minutes)


def _changed_members(
    part: str, key: str, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]] | None
) -> list[str]:
    if after is None:
        return []
    had, has = {member[key]: member for member in before}, {member[key]: member for member in after}
    return [f"{part}/{name}" for name in sorted(had.keys() | has.keys()) if had.get(name) != has.get(name)]


def traffic(rng: random.Random, stores: Sequence[Store], count: int) -> list[Event]:
    """About this many events in the order of their arrival, of every kind and with every kind of error."""
    sent: list[Event] = []
    while len(sent) < count:
        store = rng.choice(stores)
        (what,) = rng.choices([*_KINDS], [*_KINDS.values()]) if store.customers else ("create",)
        sent.extend(_some(what, rng, store, stores, sent))
    return sent


_KINDS: Final = {
    "create": 40,
    "repeat": 10,
    "create wrong": 7,
    "edit": 15,
    "edit in another store": 5,
    "correct": 13,
    "lose": 5,
    "touch": 2,
    "erase": 3,
}
"""What stores do, and how often, in percent."""


def _some(what: str, rng: random.Random, store: Store, stores: Sequence[Store], sent: list[Event]) -> list[Event]:
    customer_id = rng.choice([*store.customers] or [""])
    match what:
        case "create":
            event = store.create()
        case "repeat":
            event = rng.choice(sent or [store.create()])
        case "create wrong":
            # No name, or a country that does not exist.
            wrong: list[dict[str, Any]] = [{"first_name": "", "last_name": " "}, {"addresses": [store.address("XX")]}]
            event = store.create(**rng.choice(wrong))
        case "edit":
            event = _edit(rng, store, customer_id)
        case "edit in another store":
            other = rng.choice([other for other in stores if other.legal_entity == store.legal_entity])
            other.adopt(store, customer_id)
            event = _edit(rng, other, customer_id)
        case "correct":
            unsettled = store.unsettled[customer_id]
            event = store.edit(customer_id, unsettled, title=f"Dr. {rng.randrange(10**6)}", last_name="Lee")
        case "lose":
            return _lost_and_late(rng, store, customer_id)
        case "touch":
            event = store.touch(customer_id)
        case _:
            event = store.erase(customer_id)
    return [event]


def _edit(rng: random.Random, store: Store, customer_id: str) -> Event:
    had = store.customers[customer_id]["addresses"]
    has = rng.choice([[], [*had, store.address()], had[:1]])
    return store.edit(customer_id, addresses=has, first_name=f"First {rng.randrange(10**9)}")


def _lost_and_late(rng: random.Random, store: Store, customer_id: str) -> list[Event]:
    """Two edits, the second superseding the first, which arrives after it or never."""
    first = store.edit(customer_id, middle_name=f"M{rng.randrange(10**9)}")
    second = store.edit(customer_id, store.unsettled[customer_id], tax_number=f"T{rng.randrange(10**9)}")
    return rng.choice([[second], [second, first]])
