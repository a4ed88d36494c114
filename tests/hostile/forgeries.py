"""Records of three stores, of which some are authentic; the others were tampered with, or are somebody else's."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.faults.journal import Operation
from tests.faults.traffic import Store
from tests.signed import Signature, record_of

UNKNOWN: Final = "nowhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a record is made, without its event."""

    channel: str
    """The channel that it names."""
    signer: str | None
    """The channel whose key signs it; None if nobody does."""
    tampering: str
    is_edit: bool
    number: int
    """Where it is tampered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A record with its event, and whether the channel that it names has signed it as it is."""

    record: Operation
    event: dict[str, Any]
    is_authentic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampering:
    """What somebody has who changes a record: another record, the key of a store, a number."""

    other: Operation
    signature: Signature
    number: int

    def a_bit_of_the_value(self, record: Operation) -> Operation:
        """Without changing the code."""
        value = bytearray(record.value or b"")
        value[self.number % len(value)] ^= 1 << self.number % 8
        return replace(record, value=bytes(value))

    def a_code_that_is_cut(self, record: Operation) -> Operation:
        """The first bytes of the right code, or none of them."""
        return _with_header(record, "mac", (dict(record.headers).get("mac") or b"")[: self.number % 32])

    def a_key_that_nobody_has(self, record: Operation) -> Operation:
        """Headquarters knows no key of this id."""
        return _with_header(record, "kid", b"0" * 16)

    def headers_of_another(self, record: Operation) -> Operation:
        """Perhaps those of an authentic one."""
        return replace(record, headers=self.other.headers)

    def value_of_another(self, record: Operation) -> Operation:
        """The same."""
        return replace(record, value=self.other.value)

    def key_of_another(self, record: Operation) -> Operation:
        """The same."""
        return replace(record, key=self.other.key)

    def code_for_another_topic(self, record: Operation) -> Operation:
        """As if it had been taken from there."""
        key, value = record.key or b"", record.value or b""
        return replace(record, headers=self.signature.headers("retail-transactions", key, value))


def _with_header(record: Operation, name: str, value: bytes) -> Operation:
    """The record with another value of this header, if it has one."""
    return replace(record, headers=tuple((each, value if each == name else old) for each, old in record.headers))


TAMPERINGS: Final[Mapping[str, Callable[[Tampering, Operation], Operation]]] = {
    name: change for name, change in vars(Tampering).items() if name[0] != "_" and callable(change)
}

_PLANS: Final = st.builds(
    Plan,
    channel=st.sampled_from(("houston", "dallas", "munich", "headquarters", UNKNOWN)),
    signer=st.sampled_from(("houston", "dallas", "munich", None)),
    tampering=st.sampled_from(("none", "none", *TAMPERINGS)),
    is_edit=st.booleans(),
    number=st.integers(0, 2**20),
)
_AUTHENTIC_PLANS: Final = st.builds(
    lambda channel, is_edit, tampering, number: Plan(
        channel=channel, signer=channel, tampering=tampering, is_edit=is_edit, number=number
    ),
    channel=st.sampled_from(("houston", "dallas", "munich")),
    is_edit=st.booleans(),
    tampering=st.sampled_from(("none",) * 21 + tuple(TAMPERINGS)),
    number=st.integers(0, 2**20),
)


def plans(count: int, seed_number: int) -> Sequence[Plan]:
    """This many plans, the same for the same seed; about half are of a store that signs its own records."""
    found: list[Plan] = []

    @seed(seed_number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_PLANS | _AUTHENTIC_PLANS)
    def collect(plan: Plan) -> None:
        found.append(plan)

    collect()
    return found


def records(
    drawn: Sequence[Plan], count: int, signatures: Mapping[str, Signature], stores: Mapping[str, Store]
) -> list[Sent]:
    """This many records by these plans, each with an event of its own. The stores know only what is authentic."""
    rng = random.Random(7)
    sent: list[Sent] = []
    for number in range(count):
        plan = drawn[number % len(drawn)]
        is_authentic = plan.channel == plan.signer and plan.tampering == "none"
        event = _genuine(plan, number, stores, rng) if is_authentic else _forged(plan, stores, rng)
        record = record_of(event)
        if plan.signer is not None:
            record = signatures[plan.signer].sign(record)
        if plan.tampering != "none" and sent:
            other = sent[plan.number % len(sent)].record
            tampering = Tampering(other=other, signature=signatures[plan.signer or "houston"], number=plan.number)
            record = TAMPERINGS[plan.tampering](tampering, record)
        sent.append(Sent(record=record, event=event, is_authentic=is_authentic))
    return sent


def _genuine(plan: Plan, number: int, stores: Mapping[str, Store], rng: random.Random) -> dict[str, Any]:
    store = stores[plan.channel]
    if plan.is_edit and store.customers:
        return store.edit(rng.choice([*store.customers]), title=f"{number}")
    return store.create()


def _forged(plan: Plan, stores: Mapping[str, Store], rng: random.Random) -> dict[str, Any]:
    """A new customer, or an edit or erasure of one that a store has, of which that store knows nothing."""
    victim = stores.get(plan.channel, stores["dallas"])
    forger = Store(channel_id=plan.channel, legal_entity=victim.legal_entity, rng=rng)
    customer_id = rng.choice([*victim.customers]) if plan.is_edit and victim.customers else None
    if customer_id is not None and plan.number % 2:
        return forger.erase(customer_id)
    return forger.create(customer_id, last_name="Stolen")
