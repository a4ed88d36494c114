"""Apply the individual events of a batch, one after the other in the order of the batch.

Held events of the same customers come first, in the order in which they arrived. An event that cannot be judged yet is
held, and so are the later events of its channel and customer. All reads come first and all writes last, in a fixed
number of statements whatever the number of events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from tenten.consumers.headquarters.customers.audit import audit_rows, write_audit
from tenten.consumers.headquarters.customers.classify import ClassifiedBatch, IndividualEvent
from tenten.consumers.headquarters.customers.envelope import envelope_errors, hold_reasons, other_legal_entity
from tenten.consumers.headquarters.customers.event_log import EventLog
from tenten.consumers.headquarters.customers.held_events import HeldCustomers, HeldEvent, Originals
from tenten.consumers.headquarters.customers.held_queue import HeldQueue
from tenten.consumers.headquarters.customers.numbering import Allotment
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.rules.customer import apply_paths
from tenten.rules.customer_rules import path_reasons
from tenten.rules.customer_rules import reasons as rule_violations
from tenten.rules.definitions import definition_violations
from tenten.schemas.messages import HEADQUARTERS, CustomerEvent, CustomerState, EventKind, Outcome, Reason, canonical
from tenten.sql.customer_rows import (
    HEADQUARTERS_TABLES,
    StoredCustomer,
    insert_customers,
    read_customers,
    write_customers,
)

_WITHOUT_CHANGE: Final = frozenset((Outcome.REJECTED, Outcome.HELD))
"""Outcomes of events that change no customer."""

_STORED: Final = -1
"""The row of an event that is not in the batch, but in the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerAfter:
    """A customer after the batch, and the last event of the batch that touched it."""

    customer: StoredCustomer
    event_id: str


@dataclass(slots=True)
class IndividualEvents:
    """The individual events of a batch within one SQL transaction; `log.replies` and `touched` are the result.

    Call `read`, lock the number sequences of `events`, then call `apply`.
    """

    headquarters: Connection
    channels: KnownChannels
    allotment: Allotment
    batch: ClassifiedBatch
    held_customers: HeldCustomers
    originals: Originals
    now: datetime
    log: EventLog = field(init=False)
    touched: dict[str, CustomerAfter] = field(default_factory=dict)
    """By customer id: the customers whose snapshot is to be sent."""
    held: HeldQueue = field(default_factory=lambda: HeldQueue(()))
    _deferred: tuple[Reason, ...] = ()
    """The reasons of the held event that was judged, where only one may be judged."""
    _customers: dict[str, StoredCustomer] = field(default_factory=dict)
    _audit_rows: list[dict[str, Any]] = field(default_factory=list)
    _erased_ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.log = EventLog(
            headquarters=self.headquarters,
            positions=self.batch.positions,
            content_hashes=self.batch.content_hashes,
            writers=self.held_customers.writers,
            now=self.now,
        )

    def read(self) -> None:
        """Read the log and the held events of the customers."""
        events = [individual.event for individual in self.batch.individual_events]
        if not events:
            return
        self.log.read(events)
        # An event may have been held in a transaction whose commit was not confirmed.
        replies = [reply for event in events if (reply := self.log.reply_of(event.event_id)) is not None]
        self.held_customers.add({reply.customer_id for reply in replies if reply.outcome is Outcome.HELD})
        customer_ids = self.held_customers.among(event.customer_id for event in events)
        stored = self.held_customers.read(self.headquarters, customer_ids)
        self.held = HeldQueue(stored)
        if stored:
            self.log.read([held.event for held in stored if held.event], {held.event_id for held in stored})

    def events(self) -> list[CustomerEvent]:
        """The events that may be judged: those of the batch, and the held ones."""
        return [*self.held.events(), *(individual.event for individual in self.batch.individual_events)]

    def apply(self) -> None:
        """Read the customers, apply every event, write the changes."""
        if not self.batch.individual_events:
            return
        before = read_customers(
            self.headquarters,
            HEADQUARTERS_TABLES,
            (individual.event.customer_id for individual in self.batch.individual_events),
            for_update=True,
        )
        self._customers = dict(before)
        for individual in self.batch.individual_events:
            for held in self.held.take(individual.event.customer_id):
                self._judge_held(held)
            self._apply_event(individual)
        self._write(before)

    def _judge_held(self, held: HeldEvent) -> None:
        """Judge a stored event, if its cause is gone; repeat the reply to one that was judged before.

        One that a person has decided to reject is rejected, whatever its cause.
        """
        if held.judged:
            self.held.answered.append(held.held_id)
            self.log.reply_again(held.event_id, held.event)
            self._touch(held.customer_id, held.event_id)
        elif held.event is not None and self.held.has(held.event_id):
            individual = IndividualEvent(row=_STORED, event=held.event)
            if held.rejection:
                self._log(individual, Outcome.REJECTED, held.rejection)
            else:
                self._judge(individual)
            if not self.held.has(held.event_id):
                self._touch(held.customer_id, held.event_id)

    def _apply_event(self, individual: IndividualEvent) -> None:
        event = individual.event
        logged = self.log.reply_of(event.event_id)
        if logged is not None and not self.log.is_repeat(event, individual.row):
            self.log.reject_conflict(event, individual.row)
            return
        if logged is not None:
            self.log.count_repeat(event, individual.row)
        if logged is None or (logged.outcome is Outcome.HELD and not self.held.has(event.event_id)):
            self._judge(individual)
        else:
            self.log.reply_again(event.event_id, event)
        reply = self.log.reply_of(event.event_id)
        # A store's event that changes nothing must not make headquarters send a customer to all stores.
        if event.channel_id == HEADQUARTERS or reply is None or reply.outcome not in _WITHOUT_CHANGE:
            self._touch(event.customer_id, event.event_id)

    def _judge(self, individual: IndividualEvent) -> None:
        """Decide the outcome of an event that was never logged, or logged as held, and log it."""
        event = individual.event
        customer = self._customers.get(event.customer_id)
        reasons = self._hold_reasons(event)
        errors = envelope_errors(event, self.channels)
        may_wait = bool(reasons) and individual.row == _STORED
        if self.batch.rejection and not self._deferred and not may_wait:
            self._judged_alone(event)
            self._log(individual, Outcome.REJECTED, self.batch.rejection)
        elif reasons and (customer is None or not customer.erased):
            self._hold(individual, reasons)
        else:
            self._judged_alone(event)
            self._decide(individual, customer, errors)

    def _hold_reasons(self, event: CustomerEvent) -> tuple[Reason, ...]:
        """Why an event has to wait: its own reasons, or those of an earlier one of its channel and customer."""
        if event.kind is EventKind.TOUCHED:
            return ()
        reasons = hold_reasons(event, self.channels)
        if event.kind is not EventKind.ERASED:
            reasons = self.held.reasons_before(event) or reasons
        if not reasons and self._deferred:
            # Only one event may be judged: the others keep their reasons, or get those of that one.
            reasons = self.held.stored_reasons(event.event_id) or self._deferred
        return reasons

    def _judged_alone(self, event: CustomerEvent) -> None:
        if self.batch.only_one:
            self._deferred = self.held.stored_reasons(event.event_id)

    def _decide(self, individual: IndividualEvent, customer: StoredCustomer | None, errors: tuple[Reason, ...]) -> None:
        """Decide the outcome of an event that can be judged, unless it needs a number that is missing."""
        event = individual.event
        if errors:
            self._log(individual, Outcome.REJECTED, errors)
        elif event.kind is EventKind.ERASED:
            self._erase(individual, customer)
        elif customer is not None and customer.erased:
            self._log(individual, Outcome.ERASED)
        elif event.kind is EventKind.TOUCHED:
            self._answer_touch(individual, customer)
        else:
            self._merge(individual, customer)

    def _hold(self, individual: IndividualEvent, reasons: tuple[Reason, ...]) -> None:
        """Hold an event, and the later ones of its channel and customer."""
        event = individual.event
        is_unchanged = self.held.stored_reasons(event.event_id) == reasons
        self.held.hold(individual.row, event, reasons)
        if not is_unchanged:
            self._log(individual, Outcome.HELD, reasons)

    def _answer_touch(self, individual: IndividualEvent, customer: StoredCustomer | None) -> None:
        reasons = self.held.reasons_of(individual.event.customer_id)
        if customer is not None:
            self._log(individual, Outcome.SYNCHRONIZED)
        elif reasons:
            self._log(individual, Outcome.HELD, reasons)
        else:
            unknown = Reason(
                field="customer_id", code="unknown_customer", text="Headquarters does not have this customer."
            )
            self._log(individual, Outcome.REJECTED, (unknown,))

    def _erase(self, individual: IndividualEvent, customer: StoredCustomer | None) -> None:
        """Erase everything but the id and the account number. Idempotent.

        A customer that headquarters does not know is recorded as erased without an account number, so that events
        that arrive later cannot create it.
        """
        event = individual.event
        of_channel = self.channels.legal_entity_by_channel.get(event.channel_id, "")
        entity = customer.state.legal_entity if customer else of_channel
        if entity and of_channel and entity != of_channel:
            self._log(individual, Outcome.REJECTED, (other_legal_entity(of_channel),))
            return
        if customer is None or not customer.erased:
            self._customers[event.customer_id] = StoredCustomer(
                customer_id=event.customer_id,
                account_number=customer.account_number if customer else None,
                version=customer.version + 1 if customer else 1,
                updated_at=self.now,
                erased_at=self.now,
                state=CustomerState(legal_entity=entity),
            )
            self._erased_ids.add(event.customer_id)
            self._audit_rows = [row for row in self._audit_rows if row["customer_id"] != event.customer_id]
        self._log(individual, Outcome.ERASED)
        self._erase_held(event.customer_id)

    def _erase_held(self, customer_id: str) -> None:
        """Answer all held events of an erased customer; their content is deleted."""
        for event in self.held.of_customer(customer_id):
            self._log(IndividualEvent(row=_STORED, event=event), Outcome.ERASED)

    def _merge(self, individual: IndividualEvent, customer: StoredCustomer | None) -> None:
        """Create or edit with the event's paths and those of the superseded events that were never applied.

        An event with unknown paths is rejected: a store of a newer release may send them, and its clerk must learn
        that the values are not stored. Unknown paths of superseded events are ignored, so that the events that follow
        a rejected one are not rejected as well.
        """
        event = individual.event
        assert event.customer is not None  # envelope_errors rejects the event otherwise
        unapplied = [old for old in event.supersedes if not self.log.is_applied(old.event_id, event)]
        paths = {*event.changed, *(path for old in unapplied for path in old.changed)}
        edited = event.customer
        merged = canonical(edited) if customer is None else apply_paths(customer.state, edited, paths)
        violations = (*path_reasons(event.changed), *rule_violations(merged))
        definitions = self.channels.definitions.get(merged.legal_entity)
        if definitions is not None:
            violations += definition_violations(definitions, merged, None if customer is None else paths)
        if customer is not None and customer.state.legal_entity != edited.legal_entity:
            violations = (other_legal_entity(edited.legal_entity), *violations)
        if violations:
            self._log(individual, Outcome.REJECTED, violations)
            return
        if customer is None:
            number = self.allotment.take_one(merged.legal_entity)
            if number is None:
                self._hold(individual, (self.allotment.no_number(merged.legal_entity),))
                return
            self._store(event, number, 1, merged)
        elif merged != customer.state:
            version = customer.version + 1
            self._audit_rows += audit_rows(event, customer.state, merged, version, self.now)
            self._store(event, customer.account_number, version, merged)
        for old in unapplied:
            if not self.log.means_conflict(old.event_id, event):
                self._log(individual, Outcome.SUPERSEDED, event_id=old.event_id)
        self._log(individual, Outcome.SYNCHRONIZED)
        self.log.reply_to_superseded_conflicts(event)

    def _store(self, event: CustomerEvent, number: str | None, version: int, state: CustomerState) -> None:
        self._customers[event.customer_id] = StoredCustomer(
            customer_id=event.customer_id, account_number=number, version=version, updated_at=self.now, state=state
        )

    def _log(
        self,
        individual: IndividualEvent,
        outcome: Outcome,
        reasons: tuple[Reason, ...] = (),
        event_id: str | None = None,
    ) -> None:
        """Log and reply the outcome of an event, or of the superseded event `event_id`; it is no longer held."""
        event = individual.event
        customer = self._customers.get(event.customer_id)
        answered_id = event.event_id if event_id is None else event_id
        self.log.log(event, individual.row, outcome, reasons, customer=customer, event_id=answered_id)
        if outcome is not Outcome.HELD:
            self.held.settle(answered_id, is_erased=outcome is Outcome.ERASED)

    def _touch(self, customer_id: str, event_id: str) -> None:
        """Have the customer's snapshot sent, for repeats too."""
        customer = self._customers.get(customer_id)
        if customer is not None:
            self.touched[customer_id] = CustomerAfter(customer=customer, event_id=event_id)

    def _write(self, before: Mapping[str, StoredCustomer]) -> None:
        changed = [customer for key, customer in self._customers.items() if before.get(key) is not customer]
        new = [customer for customer in changed if customer.customer_id not in before and not customer.erased]
        # Inserted, never upserted: if another worker has just created the customer, that number is kept.
        insert_customers(self.headquarters, HEADQUARTERS_TABLES, new)
        new_ids = {customer.customer_id for customer in new}
        others = [customer for customer in changed if customer.customer_id not in new_ids]
        write_customers(self.headquarters, HEADQUARTERS_TABLES, others, before)
        self.log.write()
        self.held.write(self.headquarters, self.batch.positions, self.originals, self.now)
        self.held_customers.add(self.held.new_customers())
        write_audit(self.headquarters, self._audit_rows, self._erased_ids)
