"""The offline checker: reads everything from the beginning at the end of a test, and lists the broken promises.

It imports nothing of the product but its Avro files. The invariants are those of the fault plan; each violation is a
sentence that begins with the invariant's number. `evidence.py` reads, `case.py` decodes, `model.py` has the
expected result of the events, `contents.py` checks customers, `identity.py` event ids, `sold.py` and `closed.py` check
transactions and ends of day; this module checks numbers, events and offsets.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from tests.faults.avro import decode
from tests.faults.case import Case, Sequence, Setting, read
from tests.faults.closed import statements_match_ends_of_day, totals_are_exact
from tests.faults.contents import (
    channels_match_topic,
    database_matches_newest_snapshots,
    results_match_model,
    versions_ascend,
)
from tests.faults.evidence import READ_BY, Evidence, Record, headers_of
from tests.faults.identity import conflicts_are_rejected, is_conflict
from tests.faults.journal import Journal, Result
from tests.faults.sold import (
    customers_are_synchronized,
    no_transaction_waits_needlessly,
    replies_are_sent,
    sales_orders_match_orders,
    transactions_are_stored,
    unreadable_transactions_are_answered,
)
from tests.faults.states import parsed

__all__ = ["Sequence", "Setting", "violations"]


def violations(evidence: Evidence, journal: Journal, setting: Setting) -> list[str]:
    """Every broken promise as a sentence."""
    case = Case(evidence, journal, setting)
    found = [*read(case)]
    for check in _CHECKS:
        found.extend(check(case))
    return found


def _numbers(case: Case) -> dict[str, set[str]]:
    """By customer id: every account number observed anywhere."""
    numbers: dict[str, set[str]] = defaultdict(set)
    for customer_id, seen in case.journal.numbers_seen.items():
        numbers[customer_id] |= seen
    for customer_id, row in case.evidence.headquarters.customers.items():
        numbers[customer_id].add(row["account_number"])
    for row in case.evidence.headquarters.log.values():
        numbers[str(row["customer_id"])].add(row["account_number"])
    for _, reply in case.replies:
        numbers[reply["customer_id"]].add(reply["account_number"])
    for snapshots in (case.earlier_snapshots, case.snapshots):
        for customer_id, history in snapshots.items():
            numbers[customer_id] |= {snapshot["account_number"] for _, snapshot in history if snapshot is not None}
    for channel in case.evidence.channels.values():
        for customer_id, row in channel.customers.items():
            numbers[customer_id].add(row["account_number"])
    return {customer_id: seen - {None} for customer_id, seen in numbers.items()}


def _account_numbers_never_change(case: Case) -> Iterator[str]:
    for customer_id, numbers in _numbers(case).items():
        if len(numbers) > 1:
            yield f"I1: customer {customer_id} was seen with the account numbers {sorted(numbers)}"


def _account_numbers_are_unique(case: Case) -> Iterator[str]:
    entities = _legal_entities(case)
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for customer_id, numbers in _numbers(case).items():
        for number in numbers:
            owners[entities.get(customer_id, ""), number].add(customer_id)
    for (entity, number), customer_ids in owners.items():
        if len(customer_ids) > 1:
            owned = f"{len(customer_ids)} customers: {sorted(customer_ids)}"
            yield f"I2: account number {number} of {entity} belongs to {owned}"


def _legal_entities(case: Case) -> dict[str, str]:
    entities = {key: row["legal_entity"] for key, row in case.evidence.headquarters.customers.items()}
    for customer_id, history in case.snapshots.items():
        for _, snapshot in history:
            if snapshot is not None:
                entities[customer_id] = snapshot["customer"]["legal_entity"]
    return entities


def _no_gap(case: Case) -> Iterator[str]:
    for entity, sequence in case.setting.sequences.items():
        rows = case.evidence.headquarters.customers.values()
        own = [row["account_number"] for row in rows if row["legal_entity"] == entity and row["account_number"]]
        taken = sorted(map(sequence.number, own))
        next_number = case.evidence.headquarters.sequences[entity]["next"]
        if taken and taken[-1] >= next_number:
            yield f"I2: {entity} has given out {taken[-1]} and would give out {next_number} next"
        gaps, holes = set(range(sequence.first, next_number)) - set(taken), {*case.setting.holes.get(entity, ())}
        if sequence.continuous and gaps - holes:
            lacks = sorted(gaps - holes)[:10]
            yield f"I3: the continuous sequence of {entity} lacks {lacks} of its {next_number - 1} numbers"
        if holes - gaps:
            yield f"I3: nobody has {sorted(holes - gaps)[:10]} of {entity}, as was said, and now somebody does"


def _nothing_lost(case: Case) -> Iterator[str]:
    for record, event in case.events:
        if event["event_id"] not in case.evidence.headquarters.log:
            yield f"I4: event {event['event_id']} at {record.place} is neither in the log nor a dead letter"
    for letters in case.dead.values():
        yield from _not_logged_too(case, letters[0])
    yield from _repeats_counted(case)


def _acknowledged_records_exist(case: Case) -> Iterator[str]:
    """The records that the test wrote are on the topic, whatever their outcome."""
    values: dict[tuple[str, bytes | None, bytes | None], int] = defaultdict(int)
    for topic in READ_BY.values():
        for record in case.evidence.committed[topic]:
            values[topic, record.key, record.value] += 1
    for operation in case.journal.operations:
        topic, found = operation.topic, values[operation.topic, operation.key, operation.value]
        if operation.result is Result.OK and not found:
            place = f"{topic}/{operation.partition}/{operation.offset}"
            yield f"I4: the record acknowledged as {place} is not on the topic"
        if operation.result is Result.FAILED and found:
            yield f"I4: the record that the broker refused (event {operation.event_id}) is on {topic}"


def _dead_letters_equal_their_records(case: Case) -> Iterator[str]:
    for topic, dead in (("async-customers", case.dead), ("retail-transactions", case.dead_transactions)):
        originals = {(record.partition, record.offset): record for record in case.evidence.committed[topic]}
        for origin, letters in dead.items():
            if len(letters) > 1:
                yield f"I4: {topic}/{origin[0]}/{origin[1]} is {len(letters)} dead letters"
            yield from _same_record(originals.get(origin), letters[0])


def _same_record(original: Record | None, letter: Record) -> Iterator[str]:
    if original is None:
        yield f"I4: the dead letter {letter.place} has no original record"
        return
    same = (
        original.key == letter.key,
        original.value == letter.value,
        original.timestamp_ms == letter.timestamp_ms,
        _own_headers(original) == _own_headers(letter),
    )
    for what, is_same in zip(("key", "value", "timestamp", "headers"), same, strict=True):
        if not is_same:
            yield f"I4: the dead letter {letter.place} has a different {what} than {original.place}"


def _own_headers(record: Record) -> list[tuple[str, bytes | None]]:
    """The headers without those added to a dead letter."""
    return [header for header in record.headers if not header[0].startswith(("__connect.errors.", "x-dlq-"))]


def _not_logged_too(case: Case, letter: Record) -> Iterator[str]:
    """A dead letter that is an event all the same must not be in the log, unless it was replayed."""
    try:
        event = decode("CustomerEvent", letter.value or b"")
    except ValueError:
        return
    origin = headers_of(letter)
    row = case.evidence.headquarters.log.get(event["event_id"])
    place = (int(origin["__connect.errors.partition"]), int(origin["__connect.errors.offset"]))
    if row is not None and (row["partition"], row["offset"]) == place:
        yield f"I4: event {event['event_id']} is both in the log and the dead letter {letter.place}"


def _repeats_counted(case: Case) -> Iterator[str]:
    arrivals: dict[str, int] = defaultdict(int)
    for record, event in case.events:
        arrivals[event["event_id"]] += not is_conflict(case, record, event)
    for event_id, count in arrivals.items():
        row = case.evidence.headquarters.log.get(event_id)
        # At least: a batch that is read again after a crash is counted, too.
        if row is not None and row["repeats"] < count - 1:
            yield f"repeats: event {event_id} came {count} times, and the log counts {row['repeats']} repeats"


def _nothing_comes_from_aborted_transactions(case: Case) -> Iterator[str]:
    """Nothing in the databases may come from a record that was never committed."""
    for partition in case.evidence.open_transactions:
        yield f"I8: a transaction on {partition} has neither been committed nor aborted"
    committed: dict[tuple[int, int], set[str]] = {}
    for record, event in case.events:
        ids = {event["event_id"], *(earlier["event_id"] for earlier in event["supersedes"])}
        committed[record.partition, record.offset] = ids
    for event_id, row in case.evidence.headquarters.log.items():
        if event_id not in committed.get((row["partition"], row["offset"]), set()):
            place = f"async-customers/{row['partition']}/{row['offset']}"
            yield f"I8: event {event_id} is in the log as {place}, where no committed record has it"
    for _, reply in case.replies:
        if reply["event_id"] not in case.evidence.headquarters.log:
            yield f"I8: event {reply['event_id']} was answered, and is not in the log"


def _each_customer_has_one_owner(case: Case) -> Iterator[str]:
    """I16: no record outside the partition of its key is applied, so all of a customer's are in one."""
    partitions: dict[str, set[int]] = defaultdict(set)
    for record, event in case.events:
        partitions[event["customer_id"]].add(record.partition)
    for customer_id, found in partitions.items():
        if len(found) > 1:
            yield f"I16: events of customer {customer_id} in the partitions {sorted(found)} are no dead letters"


def _offsets_behind_database(case: Case) -> Iterator[str]:
    for group, offsets in case.evidence.group_offsets.items():
        positions: dict[int, int] = defaultdict(int)
        for row in case.evidence.headquarters.positions:
            if row["consumer_group"].endswith(group):
                positions[row["partition"]] = max(positions[row["partition"]], row["next_offset"])
        for partition, offset in offsets.items():
            known = positions[partition]
            if offset > known:
                yield f"I9: the group {group} has read partition {partition} up to {offset}, the database up to {known}"


def _nothing_is_final_by_misconfiguration(case: Case) -> Iterator[str]:
    """I14: no event is rejected for a fault of headquarters' settings, and none is held once the fault is gone."""
    for event_id, row in case.evidence.headquarters.log.items():
        codes = {reason["code"] for reason in parsed(row["reasons"])} & _FAULTS_OF_HEADQUARTERS
        if row["outcome"] == "rejected" and codes:
            yield f"I14: event {event_id} is rejected because of {sorted(codes)}"
    for row in case.evidence.headquarters.held:
        if row["judged_at"] is not None:
            yield f"I14: the reply to event {row['event_id']}, which was held, may not be on the topic"
        elif not _cause_exists(case, row["code"], row["subject"]):
            yield f"I14: event {row['event_id']} is still held for {row['code']} of {row['subject']}"


_FAULTS_OF_HEADQUARTERS: Final = frozenset(
    {"unknown_channel", "unknown_legal_entity", "no_number_sequence", "number_sequence_used_up"}
)


def _cause_exists(case: Case, code: str, subject: str) -> bool:
    entities = case.setting.legal_entity_by_channel
    if code == "unknown_channel":
        return subject not in entities
    if code == "unknown_legal_entity":
        return subject not in entities.values()
    sequence = case.evidence.headquarters.sequences.get(subject)
    return sequence is None or sequence["next"] >= 10 ** sequence["format"].count("#")


_CHECKS: Final[tuple[Callable[[Case], Iterator[str]], ...]] = (
    _account_numbers_never_change,
    _account_numbers_are_unique,
    _no_gap,
    _acknowledged_records_exist,
    _dead_letters_equal_their_records,
    _nothing_lost,
    conflicts_are_rejected,
    _nothing_is_final_by_misconfiguration,
    versions_ascend,
    channels_match_topic,
    _nothing_comes_from_aborted_transactions,
    _each_customer_has_one_owner,
    _offsets_behind_database,
    database_matches_newest_snapshots,
    results_match_model,
    transactions_are_stored,
    sales_orders_match_orders,
    customers_are_synchronized,
    statements_match_ends_of_day,
    totals_are_exact,
    replies_are_sent,
    unreadable_transactions_are_answered,
    no_transaction_waits_needlessly,
)
