"""What the events on the topic must have come to, computed from scratch: the design's words, not the product's code.

Deliberately slow and plain: one event after the other, one customer after the other. The rules are only those that the
tests break on purpose; events that break others are not for this model.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.states import PRIMARIES, State, state_of_avro

_PARTS: Final = ("addresses", "contacts", "attributes")
COUNTRIES: Final = frozenset({"US", "DE", "FR"})
"""Those that the tests use; any other breaks a rule."""


@dataclass(slots=True, kw_only=True)
class Expected:
    """What headquarters must know of one customer."""

    customer_id: str
    state: State | None
    """None once it is erased."""
    version: int
    numbered: bool


@dataclass(slots=True, kw_only=True)
class Answer:
    """What must have become of one event."""

    outcome: str
    customer_id: str
    channels: set[str]
    """Who must have been told."""


@dataclass(slots=True)
class Model:
    """Headquarters as the design describes it: give it the events of each customer in the order of the topic."""

    legal_entity_by_channel: Mapping[str, str]
    customers: dict[str, Expected] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)

    def take_in(self, event: Mapping[str, Any]) -> None:
        """One event; the same one again changes nothing, and is answered again."""
        logged = self.answers.get(event["event_id"])
        if logged is not None:
            logged.channels.add(event["channel_id"])
            return
        outcome = self._outcome(event)
        self._answer(event, event["event_id"], outcome)

    def _outcome(self, event: Mapping[str, Any]) -> str:
        customer = self.customers.get(event["customer_id"])
        if event["channel_id"] not in (*self.legal_entity_by_channel, "headquarters"):
            return "rejected"
        if event["kind"] == "ERASED":
            self._erase(event["customer_id"], customer)
            return "erased"
        if event["kind"] == "TOUCHED":
            return "rejected" if customer is None else "erased" if customer.state is None else "synchronized"
        if event["customer"] is None or not self._may_name(event):
            return "rejected"
        if customer is not None and customer.state is None:
            return "erased"
        return self._merge(event, customer)

    def _may_name(self, event: Mapping[str, Any]) -> bool:
        """Whether the event's legal entity is its channel's; headquarters may name any that exists."""
        entity = event["customer"]["legal_entity"]
        own = self.legal_entity_by_channel.get(event["channel_id"], entity)
        return entity == own and entity in self.legal_entity_by_channel.values()

    def _erase(self, customer_id: str, customer: Expected | None) -> None:
        if customer is None:
            self.customers[customer_id] = Expected(customer_id=customer_id, state=None, version=1, numbered=False)
        elif customer.state is not None:
            customer.state, customer.version = None, customer.version + 1

    def _merge(self, event: Mapping[str, Any], customer: Expected | None) -> str:
        brought = [one for one in event["supersedes"] if not self._was_applied(one["event_id"])]
        given = state_of_avro(event["customer"])
        if customer is None:
            merged = given
        else:
            assert customer.state is not None  # erased ones are answered before
            paths = {*event["changed"], *(path for one in brought for path in one["changed"])}
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
        for one in brought:
            self._answer(event, one["event_id"], "superseded")
        return "synchronized"

    def _was_applied(self, event_id: str) -> bool:
        return event_id in self.answers and self.answers[event_id].outcome != "rejected"

    def _answer(self, event: Mapping[str, Any], event_id: str, outcome: str) -> None:
        before = self.answers.get(event_id)
        channels = {event["channel_id"], *(before.channels if before else ())}
        self.answers[event_id] = Answer(outcome=outcome, customer_id=event["customer_id"], channels=channels)


def _merged(base: State, given: State, paths: Iterable[str]) -> State:
    """The base with what is given at these paths."""
    merged = deepcopy(base)
    for path in paths:
        name, _, key = path.partition("/")
        if name == "affiliations":
            members = {*merged[name]} - {key} | {one for one in given[name] if one == key}
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
    """Whether it keeps the rules that the tests break: a name, countries that exist, an address behind each primary."""
    names = ("organization_name",) if state["customer_type"] == "organization" else ("first_name", "last_name")
    return (
        any(state[name].strip() for name in names)
        and all(address["country"] in COUNTRIES for address in state["addresses"].values())
        and all(state[primary] is None or state[primary] in state[part] for primary, part in PRIMARIES.items())
    )
