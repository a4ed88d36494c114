"""The checker finds each planted bug in real topics and tables, and no violation in a clean history."""

import ast
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
from psycopg.types.json import Json

from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel, upgrade_headquarters
from tests.faults import checker
from tests.faults.avro import encode
from tests.faults.case import Sequence, Setting
from tests.faults.evidence import Record
from tests.faults.journal import Operation, Result, Writer
from tests.faults.traffic import Store
from tests.faults.world import World
from tests.faults.world_sales import ADJUSTMENT

SETTING = Setting(legal_entity_by_channel={"houston": "usrt"}, sequences={"usrt": Sequence(format="C-########")})


@pytest.fixture
def world(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> World:
    """A clean history, of which only the input topics are written yet."""
    channel = tmp_path / "houston.db"
    for engine in (open_database(headquarters_url), open_database(f"sqlite:///{channel}")):
        if engine.dialect.name == "sqlite":
            upgrade_channel(engine)
        else:
            upgrade_headquarters(engine)
        engine.dispose()
    store = Store(channel_id="houston", legal_entity="usrt", rng=random.Random(7))
    clean = World(bootstrap_servers, prefix, headquarters_url, channel, store)
    clean.live()
    return clean


def violations(world: World) -> list[str]:
    """The violations that the checker finds in this world."""
    world.write()
    return checker.violations(world.gather(), world.journal, SETTING)


def test_clean_history_passes(world: World) -> None:
    """A history without any bug has no violation."""
    assert violations(world) == []


def number_twice(world: World) -> None:
    """Replies give two customers the same account number."""
    for reply in world.replies:
        if reply["account_number"] == "C-00000002":
            reply["account_number"] = "C-00000001"


def two_numbers(world: World) -> None:
    """The repeat of an event gets a second account number."""
    repeated = [reply for reply in world.replies if reply["event_id"] == world.events[4]["event_id"]]
    repeated[-1]["account_number"] = "C-00000009"


def gap(world: World) -> None:
    """The sequence advanced, and no customer has the number."""
    world.next_number += 1


def lost_event(world: World) -> None:
    """An event was skipped, as if its offset had been committed before the database."""
    del world.log[world.events[1]["event_id"]]


def rejected_for_a_fault_of_headquarters(world: World) -> None:
    """A rejection is final, and only headquarters' settings were wrong."""
    for row in world.log.values():
        for reason in row["reasons"]:
            reason["code"] = "unknown_channel"


def held_for_ever(world: World) -> None:
    """An event of a known channel is still held because the channel is unknown."""
    event = world.events[0]
    world.held.append(
        {
            "event_id": world.store.guid(),
            "customer_id": event["customer_id"],
            "channel_id": "houston",
            "reasons": Json([]),
            "code": "unknown_channel",
            "subject": "houston",
            "topic": "async-customers",
            "partition": 0,
            "offset": 0,
            "value": b"x",
            "headers": Json([]),
            "bytes": 1,
            "held_at": event["occurred_at"],
        }
    )


def two_owners(world: World) -> None:
    """An event was applied from a partition that is not its key's."""
    event = world.events[1]
    writer = Writer(world.bootstrap_servers, world.prefix, world.journal)
    operation = Operation(key=event["customer_id"].encode(), value=encode("CustomerEvent", event))
    writer.write(operation, partition=1 - world.places[event["event_id"]].partition)
    writer.flush()


def vanished_record(world: World) -> None:
    """An acknowledged record was lost."""
    world.journal.operations.append(Operation(key=b"k", value=b"gone", result=Result.OK))


def version_back(world: World) -> None:
    """A snapshot of an older version comes after a newer one."""
    first = world.events[0]["customer_id"]
    older = next(deepcopy(snapshot) for key, snapshot in world.snapshots if key == first)
    world.snapshots.insert(-1, (first, older))


def same_version_other_content(world: World) -> None:
    """Two snapshots of one version differ."""
    key, snapshot = world.snapshots[1]
    assert snapshot is not None
    changed = deepcopy(snapshot)
    changed["customer"]["title"] = "Prof."
    world.snapshots.append((key, changed))


def version_back_in_channel(world: World) -> None:
    """A channel showed an older version after a newer one."""
    world.journal.versions_seen["houston", world.events[0]["customer_id"]] = [1, 2, 1]


def erased_revived(world: World) -> None:
    """A snapshot follows a tombstone."""
    third = world.events[2]["customer_id"]
    revived = next(deepcopy(snapshot) for key, snapshot in world.snapshots if key == third)
    world.snapshots.append((third, revived))


def log_and_dead_letter(world: World) -> None:
    """An event is both applied and a dead letter."""
    place = world.places[world.events[1]["event_id"]]
    world.dead_letters.append((place, place.value))


def dead_letter_twice(world: World) -> None:
    """One unreadable record is two dead letters."""
    world.dead_letters.append(world.dead_letters[0])


def dead_letter_changed(world: World) -> None:
    """A dead letter differs from its record."""
    world.dead_letters[0] = (world.dead_letters[0][0], b"poison?")


def dead_letter_lost(world: World) -> None:
    """An unreadable record was skipped."""
    world.dead_letters.clear()


def aborted_event_applied(world: World) -> None:
    """Headquarters has read a record whose transaction was aborted."""
    event = world.store.create(last_name="Aborted")
    producer = world.producer()
    producer.produce(f"{world.prefix}async-customers", b"aborted", event["customer_id"])
    producer.flush()
    producer.abort_transaction()
    world.places[event["event_id"]] = Record(
        topic="async-customers", partition=0, offset=999, key=None, value=None, headers=(), timestamp_ms=0
    )
    world.events.append(event)
    world._created(event)


def reply_of_aborted_attempt(world: World) -> None:
    """A reply was sent for an event that the database does not have."""
    world.replies.append(world.replies[0] | {"event_id": world.store.guid()})


def offset_ahead_of_database(world: World) -> None:
    """The group's offset is ahead of the database."""
    partition = max(world.positions)
    world.group_offsets[partition] += 1


def torn_transaction(world: World) -> None:
    """A snapshot is missing on the topic."""
    edited = world.events[3]["customer_id"]
    world.snapshots = [
        (key, snapshot)
        for key, snapshot in world.snapshots
        if key != edited or snapshot is None or snapshot["version"] == 1
    ]


def edit_overwritten(world: World) -> None:
    """The edit of one field was lost, in the database and on the topic alike."""
    edited = world.events[3]["customer_id"]
    world.customers[edited]["customer"]["title"] = ""
    for key, snapshot in world.snapshots:
        if key == edited and snapshot is not None:
            snapshot["customer"]["title"] = ""


def reply_lost(world: World) -> None:
    """A store never receives a reply."""
    rejected = world.events[5]["event_id"]
    world.replies = [reply for reply in world.replies if reply["event_id"] != rejected]


def reply_with_another_judgement(world: World) -> None:
    """A store learns of a judgement that headquarters has not made."""
    (edited,) = [reply for reply in world.replies if reply["outcome"] == "ERASED"]
    edited["judgement"] = 2


def repeat_not_counted(world: World) -> None:
    """A repeat was not counted in the log."""
    world.log[world.events[3]["event_id"]]["repeats"] = 0


def repeat_with_another_body(world: World) -> None:
    """An event with the id of another one was taken for a repeat."""
    event = world.events[0] | {"changed": ["title"]}
    writer = Writer(world.bootstrap_servers, world.prefix, world.journal)
    writer.send(event)
    writer.flush()
    world.log[event["event_id"]]["repeats"] += 1
    world._replied(event)


def conflict_not_counted(world: World) -> None:
    """The log does not count an event with the id of another one."""
    world.log[world.events[1]["event_id"]]["conflicts"] = 0


def other_content_in_the_log(world: World) -> None:
    """The log has the hash of no record."""
    world.log[world.events[3]["event_id"]]["content_hash"] += 1


def content_not_in_the_log(world: World) -> None:
    """An event is logged without the hash of its content."""
    world.log[world.events[5]["event_id"]]["content_hash"] = None


def aborted_snapshot_in_channel(world: World) -> None:
    """A channel shows a customer as an aborted transaction had it."""
    world.channel_customers[world.events[1]["customer_id"]]["customer"]["title"] = "Aborted"


def surplus_after_resync(world: World) -> None:
    """A resync that only upserts leaves an erased customer in a channel."""
    third = world.events[2]["customer_id"]
    world.channel_customers[third] = deepcopy(world.customers[third]) | {"erased": False}


def missing_in_channel(world: World) -> None:
    """A channel lacks a customer that its positions have passed."""
    del world.channel_customers[world.events[1]["customer_id"]]


def pending_customer_lost(world: World) -> None:
    """A resync deleted a customer whose event had not been sent."""
    event = world.store.create()
    world.queue = [1]
    world.outbox.append(
        {
            "sequence": 1,
            "id": event["event_id"],
            "aggregatetype": "customer",
            "aggregateid": event["customer_id"],
            "type": "CustomerCreated",
            "payload": b"",
            "created_at": event["occurred_at"],
        }
    )


def sent_and_lost(world: World) -> None:
    """A relay took an event off the queue that never arrived."""
    pending_customer_lost(world)
    world.queue = []
    world.outbox[-1] |= {"settled_at": world.events[0]["occurred_at"]}


def folded_and_sent(world: World) -> None:
    """A relay sent an event that a till had folded into the next one."""
    event = world.events[0]
    pending_customer_lost(world)
    world.queue = []
    world.outbox[-1] |= {
        "sequence": 2,
        "id": event["event_id"],
        "settled_at": event["occurred_at"],
        "outcome": "folded",
    }


# Of sales.


def order_lost(world: World) -> None:
    """An order was skipped, and so was its sales order."""
    order = world.sales.sent[2]["transaction_id"]
    del world.sales.transactions[order]
    world.sales.orders = [row for row in world.sales.orders if row["transaction_id"] != order]


def transaction_skipped(world: World) -> None:
    """An unreadable transaction left no dead letter."""
    world.dead_letters.pop()


def transaction_letter_twice(world: World) -> None:
    """An unreadable transaction is two dead letters."""
    world.dead_letters.append(world.dead_letters[-1])


def transaction_repeat_not_counted(world: World) -> None:
    """A repeat was not counted."""
    world.sales.transactions[world.sales.sent[1]["transaction_id"]]["repeats"] = 0


def id_conflict_without_reply(world: World) -> None:
    """A channel that used an id of another channel received no rejection."""
    world.sales.replies = [reply for reply in world.sales.replies if reply["channel_id"] == "houston"]


def customer_not_forwarded(world: World) -> None:
    """An order's customer event was dropped."""
    world.sales.sent[0]["customer_event"] += b"?"
    world.sales.places.clear()
    writer = Writer(world.bootstrap_servers, world.prefix, world.journal)
    writer.sell(world.sales.sent[0])
    writer.flush()


def transaction_of_aborted_record(world: World) -> None:
    """A transaction has the position of no committed record."""
    world.sales.transactions[world.sales.sent[4]["transaction_id"]]["offset"] = 999


def sold_offset_ahead_of_database(world: World) -> None:
    """The offset of the transactions group is ahead of the database."""
    world.sales.group_offsets[max(world.sales.positions)] += 1


def sales_order_twice(world: World) -> None:
    """A repeated order became two sales orders; the second has another id, because the table is unique by id."""
    twice = deepcopy(world.sales.orders[1])
    world.sales.orders.append(twice | {"sales_order": "SO-00000004", "transaction_id": world.store.guid()})
    world.sales.next_number += 1


def sales_order_missing(world: World) -> None:
    """A synchronized order has no sales order, which leaves a gap in the numbers."""
    del world.sales.orders[1]


def line_missing(world: World) -> None:
    """A sales order lacks a line."""
    _lines_of(world, world.sales.orders[-1]).pop()


def other_price(world: World) -> None:
    """A line has a different amount than was sent."""
    _lines_of(world, world.sales.orders[0])[0]["amount"] = "1000000"


def _lines_of(world: World, order: dict[str, Any]) -> list[dict[str, str]]:
    transaction = world.sales.transactions[order["transaction_id"]]
    lines: list[dict[str, str]] = transaction["content"]["lines"]
    return lines


def gap_in_sales_orders(world: World) -> None:
    """A number was used, and no sales order has it."""
    world.sales.next_number += 1


def wrong_account_number(world: World) -> None:
    """A sales order was booked on another customer's account number."""
    world.sales.orders[0]["account_number"] = "C-00000003"


def unsynchronized_customer(world: World) -> None:
    """An order was released before its customer."""
    waits = world.sales.transactions[world.sales.sent[4]["transaction_id"]]
    waits |= {"status": "synchronized", "kind": "cash_and_carry"}


def statement_counted_twice(world: World) -> None:
    """A sale that two ends of day list is in the totals of both."""
    world.sales.statements[world.sales.sent[11]["transaction_id"]]["totals"]["amounts"][0]["amount"] = "-1.05"


def posted_in_none(world: World) -> None:
    """A statement was posted without one of its sales."""
    world.sales.statement_lines.pop(0)


def posted_too_early(world: World) -> None:
    """A statement was posted while one of its sales waited."""
    sale = world.sales.transactions[world.sales.sent[7]["transaction_id"]]
    sale |= {"status": "waiting", "customer_id": world.store.guid()}


def listed_otherwise(world: World) -> None:
    """A statement has a different list than its end of day."""
    world.sales.listed = [row for row in world.sales.listed if row["owned"]]


def posted_by_no_statement(world: World) -> None:
    """A sale is listed, and no statement lists it as posted by it."""
    for row in world.sales.listed:
        if row["transaction_id"] == world.sales.sent[10]["transaction_id"]:
            row["owned"] = False


def forgotten_sale(world: World) -> None:
    """A sale that the end of day did not list is in no statement."""
    world.sales.listed = [row for row in world.sales.listed if row["statement_id"] != ADJUSTMENT]
    lines = world.sales.statement_lines
    world.sales.statement_lines = [row for row in lines if row["statement_id"] != ADJUSTMENT]
    del world.sales.statements[ADJUSTMENT]


def never_posted(world: World) -> None:
    """All sales are synchronized, and the statement is blocked."""
    world.sales.statements[world.sales.sent[9]["transaction_id"]]["status"] = "blocked"


def control_totals_differ(world: World) -> None:
    """A statement was posted although the channel's sum differs."""
    world.sales.statements[world.sales.sent[9]["transaction_id"]]["control_totals"][0]["amount"] = "1"


def last_reply_lost(world: World) -> None:
    """A channel received no reply for the last change."""
    world.sales.transactions[world.sales.sent[1]["transaction_id"]]["answer"] = 2


def replies_backwards(world: World) -> None:
    """A channel received the final reply first."""
    sale = world.sales.transactions[world.sales.sent[6]["transaction_id"]]
    sale["answer"] = 2
    place = next(
        index for index, reply in enumerate(world.sales.replies) if reply["transaction_id"] == sale["transaction_id"]
    )
    before = world.sales.replies[place] | {"status": "waiting"}
    world.sales.replies[place]["sequence"] = 2
    world.sales.replies.insert(place + 1, before)


def reply_with_number_of_another(world: World) -> None:
    """Two replies have the same number."""
    world.sales.replies.append(world.sales.replies[0] | {"status": "waiting", "sales_order": None})


def reply_to_another_record(world: World) -> None:
    """A reply names the record of another transaction."""
    other = world.sales.places[world.sales.sent[4]["transaction_id"]]
    world.sales.replies[0] |= {"input_partition": other.partition, "input_offset": other.offset}


def reply_never_sent(world: World) -> None:
    """A reply stays in the outbox."""
    of = world.sales.sent[0]["transaction_id"]
    due = {"answer_count": 1, "channel_ids": ["houston"], "transaction_ids": [of], "payloads": [b""]}
    world.sales.replies_due.append(due)


def unreadable_transaction_not_answered(world: World) -> None:
    """A sale is a dead letter, and its channel was not told."""
    place = world.sales.places[world.sales.sent[6]["transaction_id"]]
    world.dead_letters.append((place, place.value))


def waits_for_nothing(world: World) -> None:
    """An order waits, and its customer is synchronized."""
    known = world.events[1]["customer_id"]
    world.sales.transactions[world.sales.sent[4]["transaction_id"]]["customer_id"] = known


def blocked_without_reason(world: World) -> None:
    """An order is blocked, and its customer's event is not rejected."""
    world.sales.transactions[world.sales.sent[4]["transaction_id"]]["status"] = "blocked"


SOLD: Final = [
    (order_lost, "is neither in the database nor a dead letter"),
    (transaction_letter_twice, "is 2 dead letters"),
    (transaction_repeat_not_counted, "was sent 2 times, and 0 repeats are counted"),
    (id_conflict_without_reply, "T1: no reply to dallas"),
    (transaction_of_aborted_record, "I8: transaction"),
    (sold_offset_ahead_of_database, "I9: the group transactions"),
]
SOLD_TOO: Final = [
    (transaction_skipped, "is neither a transaction nor a dead letter"),
    (customer_not_forwarded, "is not on async-customers"),
    (line_missing, "T2: sales order SO-00000003 has other lines"),
    (other_price, "T2: sales order SO-00000001 has other lines"),
    (gap_in_sales_orders, "T2: the sales orders of usrt lack, or have too many of, the numbers [4]"),
    (wrong_account_number, "has the account number C-00000003 instead of C-00000001"),
]
ORDERS: Final = [
    (sales_order_twice, "which is not a transaction"),
    (sales_order_missing, "is synchronized, and 0 sales orders"),
    (unsynchronized_customer, "has a customer that headquarters does not know"),
    (unreadable_transaction_not_answered, "T5: houston was not told that transaction"),
]
CLOSED: Final = [
    (statement_counted_twice, "T4: the totals of statement"),
    (posted_in_none, "is posted, and lacks"),
    (posted_too_early, "is posted, and is not a synchronized sale"),
    (posted_by_no_statement, "0 statements list it as posted by them"),
    (forgotten_sale, "was sent before an end of its day, and is in no statement"),
]
CLOSED_TOO: Final = [
    (listed_otherwise, "has a different list than every end of day of its id"),
    (never_posted, "nothing keeps it from being posted"),
]
CONTROL: Final = [(control_totals_differ, "its control totals differ")]
TRANSACTION_REPLIES: Final = [
    (last_reply_lost, "are [1] of 2"),
    (replies_backwards, "are [2, 1] of 2"),
    (reply_with_number_of_another, "T5: two different replies 1 to houston"),
    (reply_to_another_record, "names no record of it"),
    (reply_never_sent, "T5: 1 replies were never sent"),
    (waits_for_nothing, "and its customer is synchronized"),
    (blocked_without_reason, "is blocked, and its event is None"),
]

NUMBERS: Final = [
    (number_twice, "I2: account number C-00000001"),
    (gap, "I3: the continuous sequence of usrt lacks [4]"),
    (vanished_record, "I4: the record acknowledged"),
]
REPEATS: Final = [
    (two_numbers, "I1: customer"),
    (repeat_not_counted, "repeats: event"),
    (repeat_with_another_body, "of another event, and was not rejected for it"),
    (content_not_in_the_log, "I4: the log has no hash of event"),
]
OTHER_CONTENT: Final = [
    (other_content_in_the_log, "with a customer and content that no record has"),
    (conflict_not_counted, "of another one, 0 counted"),
]
LOST: Final = [
    (lost_event, "I4: event"),
    (dead_letter_lost, "I4: async-customers"),
    (reply_lost, "replies: no reply to houston"),
    (reply_with_another_judgement, "is judgement 2 of the record"),
]
DEAD_LETTERS: Final = [
    (log_and_dead_letter, "I4: event"),
    (dead_letter_changed, "I4: the dead letter"),
    (dead_letter_twice, "I4: async-customers"),
]
BACKWARDS: Final = [(version_back, "goes back from version 2 to 1"), (version_back_in_channel, "I5: houston")]
UNEQUAL: Final = [
    (same_version_other_content, "differs from an earlier record of version 1"),
    (erased_revived, "revives the erased customer"),
]
CHANNEL: Final = [
    (aborted_snapshot_in_channel, "with other content than version 1 on the topic"),
    (surplus_after_resync, "I6: houston has customer"),
    (pending_customer_lost, "I7: houston has lost customer"),
]
CHANNEL_TOO: Final = [
    (missing_in_channel, "I6: houston lacks customer"),
    (sent_and_lost, "I4: houston has sent event"),
    (folded_and_sent, "I7: houston has folded event"),
]
ABORTED: Final = [(aborted_event_applied, "where no committed record has it")]
REPLIED: Final = [(reply_of_aborted_attempt, "was answered, and is not in the log")]
DATABASE: Final = [
    (offset_ahead_of_database, "I9: the group"),
    (torn_transaction, "I10: customers"),
    (two_owners, "I16: events of customer"),
]
MISCONFIGURED: Final = [
    (rejected_for_a_fault_of_headquarters, "is rejected because of ['unknown_channel']"),
    (held_for_ever, "is still held for unknown_channel"),
]
OVERWRITTEN: Final = [(edit_overwritten, "model: headquarters has customer")]


@pytest.mark.parametrize(
    "bugs",
    [
        *(NUMBERS, REPEATS, OTHER_CONTENT, LOST, DEAD_LETTERS, BACKWARDS, UNEQUAL),
        *(CHANNEL, CHANNEL_TOO, ABORTED, REPLIED, DATABASE, OVERWRITTEN, MISCONFIGURED),
        *(SOLD, SOLD_TOO, ORDERS, CLOSED, CLOSED_TOO, CONTROL, TRANSACTION_REPLIES),
    ],
    ids=lambda bugs: "+".join(plant.__name__ for plant, _ in bugs),
)
def test_planted_bugs_are_found(world: World, bugs: list[tuple[Callable[[World], None], str]]) -> None:
    """Each bug violates the promise that it must violate; some are planted together, to save time."""
    # given
    for plant, _ in bugs:
        plant(world)

    # when
    found = violations(world)

    # then
    missed = [plant.__name__ for plant, sentence in bugs if not any(sentence in violation for violation in found)]
    assert missed == [], found


def test_hanging_transaction_is_found(world: World) -> None:
    """An open transaction hides all later records, and is named."""
    # given
    world.write()
    producer = world.producer()
    producer.produce(f"{world.prefix}customers", b"", "k")
    producer.flush()

    # when
    found = checker.violations(world.gather(), world.journal, SETTING)

    # then
    producer.abort_transaction()
    assert [violation for violation in found if violation.startswith("I8: a transaction on")], found


def test_checker_imports_nothing_of_the_product() -> None:
    """The checker shares no code with the product."""
    ours = {
        "avro",
        "case",
        "checker",
        "closed",
        "contents",
        "evidence",
        "identity",
        "journal",
        "model",
        "sold",
        "states",
    }
    for name in ours:
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        roots = {module.split(".")[0] for module in modules}
        assert not roots & {"tenten", "schemas", "producers", "consumers"}, name
        inside = {module for module in modules if module.startswith("tests.")}
        assert inside <= {f"tests.faults.{module}" for module in ours}, name
