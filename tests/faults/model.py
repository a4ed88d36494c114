"""The expected result of the events on the topic, computed from the design and not with the product's code.

Deliberately slow and simple: event by event, customer by customer. It has only the rules that the tests violate.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.states import PRIMARIES, State, state_of_avro

_PARTS: Final = ("addresses", "contacts", "attributes")
COUNTRIES: Final = frozenset({"US", "DE", "FR"})
"""The countries that the tests use; any other violates a rule."""


@dataclass(slots=True, kw_only=True)
class Expected:
    """The expected state of a customer at headquarters."""

    customer_id: str
    state: State | None
    """None if erased."""
    version: int
    numbered: bool


@dataclass(slots=True, kw_only=True)
class ExpectedReply:
    """The expected outcome of an event."""

    outcome: str
    customer_id: str
    channels: set[str]
    """The channels that must have received it."""
    first_channel: str


@dataclass(slots=True)
class Model:
    """Headquarters as the design describes it. `ingest` the events of each customer in the order of the topic."""

    legal_entity_by_channel: Mapping[str, str]
    customers: dict[str, Expected] = field(default_factory=dict)
    replies: dict[str, ExpectedReply] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    """The ids that another event has, too."""

    def ingest(self, event: Mapping[str, Any]) -> None:
        """Apply an event; a repeat changes nothing, and is replied to again."""
        logged = self.replies.get(event["event_id"])
        if logged is not None:
            logged.channels.add(event["channel_id"])
            return
        outcome = self._outcome(event)
        self._reply(event, event["event_id"], outcome)

    def reject_conflict(self, event: Mapping[str, Any]) -> None:
        """Reject an event with the id of another event, of which nothing changes."""
        self.conflicts.add(event["event_id"])

    def _outcome(self, event: Mapping[str, Any]) -> str:
        customer = self.customers.get(event["customer_id"])
        if self._is_held(event):
            return "erased" if customer is not None and customer.state is None else "held"
        if not self._is_permitted(event, customer) or not self._may_name(event):
            return "rejected"
        if event["kind"] == "ERASED":
            self._erase(event["customer_id"], customer)
            return "erased"
        if event["kind"] == "TOUCHED":
            return "rejected" if customer is None else "erased" if customer.state is None else "synchronized"
        if customer is not None and customer.state is None:
            return "erased"
        return self._merge(event, customer)

    def _is_held(self, event: Mapping[str, Any]) -> bool:
        """Whether headquarters lacks the channel or the legal entity of the event."""
        if event["kind"] == "TOUCHED":
            return False
        if event["channel_id"] not in (*self.legal_entity_by_channel, "headquarters"):
            return True
        if event["kind"] == "ERASED" or event["customer"] is None:
            return False
        return event["customer"]["legal_entity"] not in self.legal_entity_by_channel.values()

    def _is_permitted(self, event: Mapping[str, Any], customer: Expected | None) -> bool:
        """Only headquarters touches; the stores of the tests may erase customers of their legal entity."""
        if event["kind"] not in ("ERASED", "TOUCHED") or event["channel_id"] == "headquarters":
            return True
        if event["kind"] == "TOUCHED":
            return False
        entity = self.legal_entity_by_channel[event["channel_id"]]
        return customer is None or customer.state is None or customer.state["legal_entity"] == entity

    def _may_name(self, event: Mapping[str, Any]) -> bool:
        """Whether the event has a customer of its channel's legal entity, or needs none; headquarters may name any."""
        if event["kind"] in ("ERASED", "TOUCHED") or event["customer"] is None:
            return event["kind"] in ("ERASED", "TOUCHED")
        entity = event["customer"]["legal_entity"]
        return bool(entity == self.legal_entity_by_channel.get(event["channel_id"], entity))

    def _erase(self, customer_id: str, customer: Expected | None) -> None:
        if customer is None:
            self.customers[customer_id] = Expected(customer_id=customer_id, state=None, version=1, numbered=False)
        elif customer.state is not None:
            customer.state, customer.version = None, customer.version + 1

    def _merge(self, event: Mapping[str, Any], customer: Expected | None) -> str:
        superseded = [earlier for earlier in event["supersedes"] if not self._was_applied(earlier["event_id"], event)]
        given = state_of_avro(event["customer"])
        if customer is None:
            merged = given
        else:
            assert customer.state is not None  # erased customers are handled before
            paths = {*event["changed"], *(path for earlier in superseded for path in earlier["changed"])}
            merged = _merged(customer.state, given, paths)
            if customer.state["legal_entity"] != given["legal_entity"]:
                return "rejected"
        if not is_valid(merged):
            return "rejected"
        if customer is None:
            customer_id = event["customer_id"]
            self.customers[customer_id] = Expected(customer_id=customer_id, state=merged, version=1, numbered=True)
        elif merged != customer.state:
            customer.state, customer.version = merged, customer.version + 1
        for earlier in superseded:
            if not self._means_conflict(earlier["event_id"], event):
                self._reply(event, earlier["event_id"], "superseded")
        return "synchronized"

    def _was_applied(self, event_id: str, by: Mapping[str, Any]) -> bool:
        logged = self.replies.get(event_id)
        is_applied = logged is not None and logged.outcome not in ("rejected", "held")
        return is_applied and not self._means_conflict(event_id, by)

    def _means_conflict(self, event_id: str, by: Mapping[str, Any]) -> bool:
        """Whether an event supersedes one that was rejected for its id, rather than the logged one."""
        logged = self.replies.get(event_id)
        if logged is None or logged.customer_id != by["customer_id"]:
            return logged is not None
        if logged.first_channel != by["channel_id"]:
            return True
        return event_id in self.conflicts and logged.outcome not in ("rejected", "held")

    def _reply(self, event: Mapping[str, Any], event_id: str, outcome: str) -> None:
        before = self.replies.get(event_id)
        self.replies[event_id] = ExpectedReply(
            outcome=outcome,
            customer_id=event["customer_id"],
            channels={event["channel_id"], *(before.channels if before else ())},
            first_channel=before.first_channel if before else event["channel_id"],
        )


def _merged(base: State, given: State, paths: Iterable[str]) -> State:
    """The base with the given values at these paths."""
    merged = deepcopy(base)
    for path in paths:
        name, _, key = path.partition("/")
        if name == "affiliations" or (name == "address_books" and key):
            members = {*merged[name]} - {key} | {member for member in given[name] if member == key}
            merged[name] = sorted(members)
        elif name in _PARTS:
            merged[name].pop(key, None)
            if key in given[name]:
                merged[name][key] = given[name][key]
        elif name != "legal_entity":
            merged[name] = given[name]
    for primary, part in PRIMARIES.items():
        if merged[primary] not in merged[part]:
            merged[primary] = None
    return merged


def is_valid(state: State) -> bool:
    """Whether it satisfies the rules that the tests violate: a name, known countries, an address for each primary."""
    names = ("organization_name",) if state["customer_type"] == "organization" else ("first_name", "last_name")
    return (
        any(state[name].strip() for name in names)
        and all(address["country"] in COUNTRIES for address in state["addresses"].values())
        and all(state[primary] is None or state[primary] in state[part] for primary, part in PRIMARIES.items())
    )
