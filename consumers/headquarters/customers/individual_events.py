"""Apply the individual events of a batch, one after the other in the order of the batch.

All reads come first and all writes last, in a fixed number of statements whatever the number of events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert

from tenten.consumers.headquarters.customers.classify import ClassifiedBatch, IndividualEvent
from tenten.consumers.headquarters.customers.envelope import envelope_errors, other_legal_entity
from tenten.consumers.headquarters.customers.numbering import Allotment, numbers_used_up
from tenten.consumers.headquarters.customers.synchronization_log import FIRST_JUDGEMENT, LogEntry, read_log, write_log
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.rules.customer import apply_paths, changed_paths, value_at
from tenten.rules.customer_rules import path_reasons
from tenten.rules.customer_rules import reasons as rule_violations
from tenten.rules.operator_rule import storable_operator
from tenten.schemas.messages import CustomerEvent, CustomerState, EventKind, Outcome, Reason, Reply, canonical
from tenten.schemas.tables.headquarters import customer_audit
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_rows import (
    HEADQUARTERS_TABLES,
    StoredCustomer,
    insert_customers,
    read_customers,
    write_customers,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerAfter:
    """A customer after the batch, and the last event of the batch that touched it."""

    customer: StoredCustomer
    event_id: str


@dataclass(slots=True)
class IndividualEvents:
    """The individual events of a batch within one SQL transaction; `replies` and `touched` are the result."""

    headquarters: Connection
    channels: KnownChannels
    allotment: Allotment
    batch: ClassifiedBatch
    now: datetime
    replies: list[Reply] = field(default_factory=list)
    """The replies to the events and to those that they superseded, in order."""
    touched: dict[str, CustomerAfter] = field(default_factory=dict)
    """By customer id: the customers whose snapshot is to be sent."""
    _customers: dict[str, StoredCustomer] = field(default_factory=dict)
    _log_entries: dict[str, LogEntry] = field(default_factory=dict)
    _audit_rows: list[dict[str, Any]] = field(default_factory=list)
    _erased_ids: set[str] = field(default_factory=set)

    def apply(self) -> None:
        """Read customers and log, apply every event, write the changes."""
        events = [individual.event for individual in self.batch.individual_events]
        if not events:
            return
        before = read_customers(
            self.headquarters, HEADQUARTERS_TABLES, (event.customer_id for event in events), for_update=True
        )
        self._customers = dict(before)
        superseded_ids = {superseded.event_id for event in events for superseded in event.supersedes}
        self._log_entries = read_log(self.headquarters, {event.event_id for event in events} | superseded_ids)
        for individual in self.batch.individual_events:
            self._apply_event(individual)
        self._write(before)

    def _apply_event(self, individual: IndividualEvent) -> None:
        event = individual.event
        logged = self._log_entries.get(event.event_id)
        if logged is not None and logged.reply.customer_id != event.customer_id:
            self._reject_duplicate_id(individual)
            return
        if logged is not None:
            self._repeat(event, logged)
        else:
            self._judge(individual)
        self._touch(event)

    def _reject_duplicate_id(self, individual: IndividualEvent) -> None:
        """Reject an event that has the id of another customer's event. Not logged: the log entry is the other's."""
        event = individual.event
        text = "Another customer's event has this id: give every event its own id."
        reply = Reply(
            channel_id=event.channel_id,
            event_id=event.event_id,
            customer_id=event.customer_id,
            outcome=Outcome.REJECTED,
            reasons=(Reason(field="event_id", code="duplicate", text=text),),
            answered_at=self.now,
            judgement=FIRST_JUDGEMENT,
            input_partition=self.batch.positions.partitions[individual.row],
            input_offset=self.batch.positions.offsets[individual.row],
        )
        self.replies.append(reply)

    def _repeat(self, event: CustomerEvent, logged: LogEntry) -> None:
        """Count a repeat and reply as before, also to what the event superseded: those replies may be lost as well."""
        self._log_entries[event.event_id] = replace(logged, repeats=logged.repeats + 1)
        self.replies.append(replace(logged.reply, channel_id=event.channel_id))
        superseded_ids = [superseded.event_id for superseded in event.supersedes]
        entries = [self._log_entries[event_id] for event_id in superseded_ids if event_id in self._log_entries]
        self.replies.extend(
            replace(entry.reply, channel_id=event.channel_id)
            for entry in entries
            if entry.reply.outcome is Outcome.SUPERSEDED and entry.reply.customer_id == event.customer_id
        )

    def _judge(self, individual: IndividualEvent) -> None:
        """Decide the outcome of an event that was never logged, and log it."""
        event = individual.event
        customer = self._customers.get(event.customer_id)
        errors = (*self.batch.rejection, *envelope_errors(event, self.channels))
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

    def _answer_touch(self, individual: IndividualEvent, customer: StoredCustomer | None) -> None:
        if customer is None:
            unknown = Reason(
                field="customer_id", code="unknown_customer", text="Headquarters does not have this customer."
            )
            self._log(individual, Outcome.REJECTED, (unknown,))
        else:
            self._log(individual, Outcome.SYNCHRONIZED)

    def _erase(self, individual: IndividualEvent, customer: StoredCustomer | None) -> None:
        """Erase everything but the id and the account number. Idempotent.

        A customer that headquarters does not know is recorded as erased without an account number, so that events
        that arrive later cannot create it.
        """
        event = individual.event
        if customer is None or not customer.erased:
            entity = (
                customer.state.legal_entity
                if customer
                else self.channels.legal_entity_by_channel.get(event.channel_id, "")
            )
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

    def _merge(self, individual: IndividualEvent, customer: StoredCustomer | None) -> None:
        """Create or edit with the event's paths and those of the superseded events that were never applied.

        An event with unknown paths is rejected: a store of a newer release may send them, and its clerk must learn
        that the values are not stored. Unknown paths of superseded events are ignored, so that the events that follow
        a rejected one are not rejected as well.
        """
        event = individual.event
        assert event.customer is not None  # envelope_errors rejects the event otherwise
        unapplied = [old for old in event.supersedes if not self._is_settled(old.event_id, event.customer_id)]
        paths = {*event.changed, *(path for old in unapplied for path in old.changed)}
        edited = event.customer
        merged = canonical(edited) if customer is None else apply_paths(customer.state, edited, paths)
        violations = (*path_reasons(event.changed), *rule_violations(merged))
        if customer is not None and customer.state.legal_entity != edited.legal_entity:
            violations = (other_legal_entity(edited.legal_entity), *violations)
        if violations:
            self._log(individual, Outcome.REJECTED, violations)
            return
        if customer is None:
            number = self.allotment.take_one(merged.legal_entity)
            if number is None:
                self._log(individual, Outcome.REJECTED, (numbers_used_up(merged.legal_entity),))
                return
            self._store(event, number, 1, merged)
        elif merged != customer.state:
            version = customer.version + 1
            self._audit(event, customer.state, merged, version)
            self._store(event, customer.account_number, version, merged)
        for old in unapplied:
            self._log(individual, Outcome.SUPERSEDED, event_id=old.event_id)
        self._log(individual, Outcome.SYNCHRONIZED)

    def _is_settled(self, event_id: str, customer_id: str) -> bool:
        """True if a superseded event was applied, or belongs to another customer and so cannot be superseded here."""
        entry = self._log_entries.get(event_id)
        if entry is None:
            return False
        return entry.reply.outcome is not Outcome.REJECTED or entry.reply.customer_id != customer_id

    def _store(self, event: CustomerEvent, number: str | None, version: int, state: CustomerState) -> None:
        self._customers[event.customer_id] = StoredCustomer(
            customer_id=event.customer_id, account_number=number, version=version, updated_at=self.now, state=state
        )

    def _audit(self, event: CustomerEvent, before: CustomerState, after: CustomerState, version: int) -> None:
        self._audit_rows.extend(
            {
                "customer_id": event.customer_id,
                "event_id": event.event_id,
                "channel_id": event.channel_id,
                "operator": event.operator,
                "version": version,
                "path": path,
                "old_value": value_at(before, path),
                "new_value": value_at(after, path),
                "changed_at": self.now,
            }
            for path in changed_paths(before, after)
        )

    def _log(
        self,
        individual: IndividualEvent,
        outcome: Outcome,
        reasons: tuple[Reason, ...] = (),
        event_id: str | None = None,
    ) -> None:
        """Log and reply the outcome of an event, or of the superseded event `event_id`.

        An event that was rejected before is judged once more; its log entry keeps the position of its first record.
        """
        event = individual.event
        customer = self._customers.get(event.customer_id)
        answered_id = event.event_id if event_id is None else event_id
        rejected = self._log_entries.get(answered_id)
        positions = self.batch.positions
        reply = Reply(
            channel_id=event.channel_id,
            event_id=answered_id,
            customer_id=event.customer_id,
            outcome=outcome,
            reasons=reasons,
            account_number=customer.account_number if customer else None,
            version=customer.version if customer else None,
            answered_at=self.now,
            judgement=rejected.reply.judgement + 1 if rejected else FIRST_JUDGEMENT,
            input_partition=rejected.reply.input_partition if rejected else positions.partitions[individual.row],
            input_offset=rejected.reply.input_offset if rejected else positions.offsets[individual.row],
        )
        if rejected is None:
            entry = LogEntry(
                reply=reply,
                kind=event.kind.lower(),
                operator=storable_operator(event.operator) if reply.event_id == event.event_id else None,
                occurred_at=event.occurred_at,
                new=True,
            )
        else:
            entry = replace(rejected, reply=reply, overturned=True)
        self._log_entries[reply.event_id] = entry
        self.replies.append(reply)

    def _touch(self, event: CustomerEvent) -> None:
        """Have the customer's snapshot sent, for repeats too."""
        customer = self._customers.get(event.customer_id)
        if customer is not None:
            self.touched[event.customer_id] = CustomerAfter(customer=customer, event_id=event.event_id)

    def _write(self, before: Mapping[str, StoredCustomer]) -> None:
        changed = [customer for key, customer in self._customers.items() if before.get(key) is not customer]
        new = [customer for customer in changed if customer.customer_id not in before and not customer.erased]
        # Inserted, never upserted: if another worker has just created the customer, that number is kept.
        insert_customers(self.headquarters, HEADQUARTERS_TABLES, new)
        new_ids = {customer.customer_id for customer in new}
        others = [customer for customer in changed if customer.customer_id not in new_ids]
        write_customers(self.headquarters, HEADQUARTERS_TABLES, others, before)
        write_log(self.headquarters, list(self._log_entries.values()), self.batch.positions.topic)
        if self._erased_ids:
            erased = is_one_of(self.headquarters, customer_audit.c.customer_id, self._erased_ids)
            self.headquarters.execute(delete(customer_audit).where(erased))
        if self._audit_rows:
            self.headquarters.execute(insert(customer_audit), self._audit_rows)
