"""Checks of customers: versions, snapshots, channels, and the result of their events according to the model."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.faults.case import Case
from tests.faults.evidence import ChannelTables
from tests.faults.identity import is_conflict, is_conflict_reply
from tests.faults.model import Model
from tests.faults.states import State, parsed, state_of_avro


def versions_ascend(case: Case) -> Iterator[str]:
    """I5: per key of the topic, also from a deleted topic to the next, and in the observations of a channel."""
    for customer_id in case.earlier_snapshots.keys() | case.snapshots.keys():
        history = [*case.earlier_snapshots.get(customer_id, ()), *case.snapshots.get(customer_id, ())]
        if len({record.partition for record, _ in history}) > 1:
            yield f"I5: customer {customer_id} is in several partitions of customers"
        newest: dict[str, Any] = {"version": 0}
        erased = False
        for record, snapshot in history:
            if snapshot is None:
                erased = True
            elif erased:
                yield f"I5: {record.place} revives the erased customer {customer_id}"
            elif snapshot["version"] < newest["version"]:
                yield f"I5: {record.place} goes back from version {newest['version']} to {snapshot['version']}"
            elif snapshot["version"] == newest["version"] and not _equal(snapshot, newest):
                yield f"I5: {record.place} differs from an earlier record of version {snapshot['version']}"
            newest = snapshot or newest
    for (channel, customer_id), versions in case.journal.versions_seen.items():
        if versions != sorted(versions):
            yield f"I5: {channel} showed customer {customer_id} in the versions {versions}"


def _equal(snapshot: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return state_of_avro(snapshot["customer"]) == state_of_avro(other["customer"])


def channels_match_topic(case: Case) -> Iterator[str]:
    """I6 and I7: a channel has the result of the committed records up to its positions, and loses no own change."""
    for name, channel in case.evidence.channels.items():
        visible = _visible(case, name, channel)
        edited = {str(row["aggregateid"]) for row in channel.outbox if _is_overlaid(row, channel)}
        for customer_id in sorted({*visible, *channel.customers} - edited):
            row, snapshot = channel.customers.get(customer_id), visible.get(customer_id)
            if row is None:
                yield f"I6: {name} lacks customer {customer_id}"
            elif snapshot is None:
                yield f"I6: {name} has customer {customer_id}, which no committed record at its position gives it"
            elif row["version"] != snapshot["version"] or channel.states[customer_id] != state_of_avro(
                snapshot["customer"]
            ):
                version = snapshot["version"]
                yield f"I6: {name} has customer {customer_id} with other content than version {version} on the topic"
        yield from _outbox_arrived(case, name, channel)


def _visible(case: Case, name: str, channel: ChannelTables) -> dict[str, dict[str, Any]]:
    """The customers of a channel with these filters, from the committed records up to its positions."""
    # Positions in the topics of replies have the same numbers of partitions.
    of_customers = [row for row in channel.positions if row["topic"].endswith("customers")]
    positions = {row["partition"]: row["next_offset"] for row in of_customers}
    books = set(case.setting.address_books.get(name, ()))
    visible = {}
    for customer_id, history in case.snapshots.items():
        passed = [snapshot for record, snapshot in history if record.offset < positions.get(record.partition, 0)]
        newest = passed[-1] if passed else None
        if newest is None or newest["customer"]["legal_entity"] != case.setting.legal_entity_by_channel[name]:
            continue
        theirs = set(newest["customer"]["address_books"])
        if not books or not theirs or books & theirs:
            visible[customer_id] = newest
    return visible


def _is_overlaid(row: Mapping[str, Any], channel: ChannelTables) -> bool:
    """Whether this outbox row still overlays the snapshot."""
    customer = channel.customers.get(str(row["aggregateid"]))
    if row["settled_at"] is None:
        return True
    return customer is not None and (row["version"] or 0) > customer["version"]


def _outbox_arrived(case: Case, name: str, channel: ChannelTables) -> Iterator[str]:
    arrived = {*(event["event_id"] for _, event in case.events), *case.transactions}
    unsettled = {str(row["aggregateid"]) for row in channel.outbox if _is_unsettled_event(row)}
    for row in channel.outbox:
        if row["outcome"] == _FOLDED and str(row["id"]) in arrived:
            yield f"I7: {name} has folded event {row['id']} into a later one, and it is on the topic"
        if row["sequence"] not in channel.queue and row["outcome"] not in _NEVER_SENT and str(row["id"]) not in arrived:
            yield f"I4: {name} has sent event {row['id']}, which is not on the topic"
    for customer_id in sorted(unsettled - channel.customers.keys()):
        yield f"I7: {name} has lost customer {customer_id}, which has unsettled events"


_FOLDED: Final = "folded"

_NEVER_SENT: Final = frozenset({"erased", "rejected", "discarded", _FOLDED})
"""Outcomes that a row can also get in the channel, before it was sent."""


def _is_unsettled_event(row: Mapping[str, Any]) -> bool:
    return row["aggregatetype"] == "customer" and row["settled_at"] is None


def database_matches_newest_snapshots(case: Case) -> Iterator[str]:
    """I10: headquarters' rows equal the newest record of each key."""
    tables = case.evidence.headquarters
    for customer_id in sorted(case.snapshots.keys() - tables.customers.keys()):
        yield f"I10: customer {customer_id} is on the topic, and not in headquarters' database"
    for customer_id, row in tables.customers.items():
        history = case.snapshots.get(customer_id)
        if not history:
            yield f"I10: customer {customer_id} is in headquarters' database, and not on the topic"
            continue
        record, snapshot = history[-1]
        if (row["erased_at"] is not None) != (snapshot is None):
            yield f"I10: {record.place} and headquarters do not agree whether customer {customer_id} is erased"
        elif snapshot is not None and _differs(snapshot, row, tables.states[customer_id]):
            yield f"I10: {record.place} is not customer {customer_id} as headquarters stores it"


def _differs(snapshot: Mapping[str, Any], row: Mapping[str, Any], state: State) -> bool:
    same = (
        snapshot["version"] == row["version"],
        snapshot["account_number"] == row["account_number"],
        snapshot["updated_at"] == row["updated_at"],
        state_of_avro(snapshot["customer"]) == state,
    )
    return not all(same)


def results_match_model(case: Case) -> Iterator[str]:
    """Every customer and every outcome equals that of the model."""
    if not case.setting.judge_content:
        return
    model = Model(case.setting.legal_entity_by_channel)
    for record, event in case.events:
        if is_conflict(case, record, event):
            model.reject_conflict(event)
        else:
            model.ingest(event)
    tables = case.evidence.headquarters
    for customer_id, expected in model.customers.items():
        row = tables.customers.get(customer_id)
        if row is None:
            yield f"model: headquarters lacks customer {customer_id}"
        elif (row["erased_at"] is not None) != (expected.state is None):
            yield f"model: headquarters is wrong about whether customer {customer_id} is erased"
        elif (row["account_number"] is not None) != expected.numbered:
            yield f"model: headquarters is wrong about whether customer {customer_id} has an account number"
        elif row["version"] != expected.version:
            versions = f"{row['version']} instead of {expected.version}"
            yield f"model: headquarters has customer {customer_id} in version {versions}"
        elif expected.state is not None and expected.state != tables.states[customer_id]:
            yield f"model: headquarters has customer {customer_id} with other content than its events give"
    for customer_id in sorted(tables.customers.keys() - model.customers.keys()):
        yield f"model: headquarters has customer {customer_id}, which no event gives it"
    yield from _replies_of_the_model(case, model)


def _replies_of_the_model(case: Case, model: Model) -> Iterator[str]:
    last = {
        (reply["channel_id"], reply["event_id"]): reply for _, reply in case.replies if not is_conflict_reply(reply)
    }
    for event_id, expected_reply in model.replies.items():
        row = case.evidence.headquarters.log.get(event_id)
        if row is None or row["outcome"] != expected_reply.outcome:
            outcome = row["outcome"] if row else "missing"
            yield f"model: event {event_id} is {outcome} instead of {expected_reply.outcome}"
            continue
        for channel in sorted(expected_reply.channels):
            yield from _wrong_reply(f"{channel} of event {event_id}", last.get((channel, event_id)), row)


def _wrong_reply(who: str, reply: Mapping[str, Any] | None, row: Mapping[str, Any]) -> Iterator[str]:
    """The last reply to an event has the values of the log, with reasons only if it is rejected or held."""
    if reply is None:
        yield f"replies: no reply to {who}"
        return
    if reply["outcome"].lower() != row["outcome"]:
        yield f"replies: the last reply to {who} is {reply['outcome']}, not {row['outcome']}"
    if (reply["account_number"], reply["version"]) != (row["account_number"], row["version"]):
        yield f"replies: the last reply to {who} has a different number or version than the log"
    answered = (reply["judgement"], reply["input_partition"], reply["input_offset"])
    if answered != (row["judgement"], row["partition"], row["offset"]):
        yield f"replies: the last reply to {who} is judgement {answered[0]} of the record {answered[1:]}"
    if reply["reasons"] != (parsed(row["reasons"]) if row["outcome"] in ("rejected", "held") else []):
        yield f"replies: the last reply to {who}, which is {row['outcome']}, has {len(reply['reasons'])} reasons"
