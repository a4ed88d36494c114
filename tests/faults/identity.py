"""Checks of event ids: the same id with another customer or other content is another event, and never a repeat."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from tests.faults.case import Case
from tests.faults.evidence import Record
from tests.faults.states import Row


def content_hash(value: bytes, event: Mapping[str, Any]) -> int:
    """The hash of an event's bytes behind the framing, as headquarters logs it; 0 for a touch."""
    if event["kind"] == "TOUCHED":
        return 0
    body = value[10:] if value.startswith(b"\xc3\x01") else value[5:]
    return int.from_bytes(blake2b(body, digest_size=8).digest(), "big", signed=True)


def is_conflict(case: Case, record: Record, event: Mapping[str, Any]) -> bool:
    """Whether the log has another event with this id."""
    row = case.evidence.headquarters.log.get(event["event_id"])
    return row is not None and not _is_logged(row, record, event)


def _is_logged(row: Row, record: Record, event: Mapping[str, Any]) -> bool:
    is_same = row["content_hash"] in (None, content_hash(record.value or b"", event))
    return is_same and str(row["customer_id"]) == event["customer_id"]


def is_conflict_reply(reply: Mapping[str, Any]) -> bool:
    """Whether it answers an event with the id of another one."""
    return any(reason["field"] == "event_id" and reason["code"] == "duplicate" for reason in reply["reasons"])


def conflicts_are_rejected(case: Case) -> Iterator[str]:
    """I4: of all events with one id one is in the log; each of the others is rejected, and counted."""
    rejected = {
        (reply["input_partition"], reply["input_offset"], reply["event_id"], reply["customer_id"])
        for _, reply in case.replies
        if reply["outcome"] == "REJECTED" and is_conflict_reply(reply)
    }
    arrivals: dict[str, list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
    for record, event in case.events:
        arrivals[event["event_id"]].append((record, event))
    for event_id, found in arrivals.items():
        row = case.evidence.headquarters.log.get(event_id)
        if row is None:
            continue
        conflicts = [(record, event) for record, event in found if not _is_logged(row, record, event)]
        if len(conflicts) == len(found):
            yield f"I4: the log has event {event_id} with a customer and content that no record has"
            continue
        if row["content_hash"] is None:
            yield f"I4: the log has no hash of event {event_id}, which has arrived"
        for record, event in conflicts:
            if (record.partition, record.offset, event_id, event["customer_id"]) not in rejected:
                yield f"I4: {record.place} has the id {event_id} of another event, and was not rejected for it"
        if row["conflicts"] < len(conflicts):
            yield f"repeats: {len(conflicts)} events have the id {event_id} of another one, {row['conflicts']} counted"
