"""The checker is proved: it finds each classic bug in real topics and tables, and nothing in a clean history."""

import ast
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest

from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel, upgrade_headquarters
from tests.faults import checker
from tests.faults.case import Sequence, Setting
from tests.faults.evidence import Record
from tests.faults.journal import Operation, Result, Writer
from tests.faults.traffic import Store
from tests.faults.world import World
from tests.faults.world_sales import ADJUSTMENT

SETTING = Setting(legal_entity_by_channel={"houston": "usrt"}, sequences={"usrt": Sequence(format="C-########")})


@pytest.fixture
def world(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> World:
    """A clean history of which only the events are written yet."""
    channel = tmp_path / "houston.db"
    for engine in (open_database(headquarters_url), open_database(f"sqlite:///{channel}")):
        if engine.dialect.name == "sqlite":
            upgrade_channel(engine)
        else:
            upgrade_headquarters(engine, {})
        engine.dispose()
    store = Store(channel_id="houston", legal_entity="usrt", rng=random.Random(7))
    lived = World(bootstrap_servers, prefix, headquarters_url, channel, store)
    lived.live()
    return lived


def violations(world: World) -> list[str]:
    """What the checker says of this world."""
    world.write()
    return checker.violations(world.gather(), world.journal, SETTING)


def test_clean_history_passes(world: World) -> None:
    """A history without any bug has no violation."""
    assert violations(world) == []


def number_twice(world: World) -> None:
    """Two customers are told the same account number."""
    for reply in world.replies:
        if reply["account_number"] == "C-00000002":
            reply["account_number"] = "C-00000001"


def two_numbers(world: World) -> None:
    """The repeat of an event gets a second account number."""
    repeated = [reply for reply in world.replies if reply["event_id"] == world.events[4]["event_id"]]
    repeated[-1]["account_number"] = "C-00000009"


def gap(world: World) -> None:
    """The counter advanced, and nobody has the number."""
    world.next_number += 1


def lost_event(world: World) -> None:
    """An event was passed over, as if the offset had been committed before the database."""
    del world.log[world.events[1]["event_id"]]


def vanished_record(world: World) -> None:
    """What the broker acknowledged is gone."""
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
    """A clerk saw a customer go back."""
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
    """A dead letter is not what was read."""
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


def answer_of_aborted_attempt(world: World) -> None:
    """A reply went out for an event that the database never took in."""
    world.replies.append(world.replies[0] | {"event_id": world.store.guid()})


def offset_ahead_of_database(world: World) -> None:
    """The group has read what the database has not."""
    partition = max(world.positions)
    world.group_offsets[partition] += 1


def torn_transaction(world: World) -> None:
    """A snapshot is missing on the topic."""
    edited = world.events[3]["customer_id"]
    world.snapshots = [
        (key, one) for key, one in world.snapshots if key != edited or one is None or one["version"] == 1
    ]


def edit_overwritten(world: World) -> None:
    """The edit of one field was lost, in the database and on the topic alike."""
    edited = world.events[3]["customer_id"]
    world.customers[edited]["customer"]["title"] = ""
    for key, snapshot in world.snapshots:
        if key == edited and snapshot is not None:
            snapshot["customer"]["title"] = ""


def answer_lost(world: World) -> None:
    """A store waits for an answer for ever."""
    rejected = world.events[5]["event_id"]
    world.replies = [reply for reply in world.replies if reply["event_id"] != rejected]


def repeat_not_counted(world: World) -> None:
    """A repeat left no trace in the log."""
    world.log[world.events[3]["event_id"]]["repeats"] = 0


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
    """A resync threw away a customer whose event had not been sent."""
    event = world.store.create()
    world.outbox.append(
        {
            "id": event["event_id"],
            "aggregatetype": "customer",
            "aggregateid": event["customer_id"],
            "type": "CustomerCreated",
            "payload": b"",
            "created_at": event["occurred_at"],
        }
    )


def sent_and_lost(world: World) -> None:
    """A relay marked an event as sent that never arrived."""
    pending_customer_lost(world)
    world.outbox[-1] |= {"sent_at": world.events[0]["occurred_at"], "settled_at": world.events[0]["occurred_at"]}


# Of sales.


def order_lost(world: World) -> None:
    """An order was passed over, and its sales order with it."""
    order = world.sales.sent[2]["transaction_id"]
    del world.sales.transactions[order]
    world.sales.orders = [one for one in world.sales.orders if one["transaction_id"] != order]


def transaction_skipped(world: World) -> None:
    """An unreadable transaction left no dead letter."""
    world.dead_letters.pop()


def transaction_letter_twice(world: World) -> None:
    """An unreadable transaction is two dead letters."""
    world.dead_letters.append(world.dead_letters[-1])


def transaction_repeat_not_counted(world: World) -> None:
    """A repeat left no trace."""
    world.sales.transactions[world.sales.sent[1]["transaction_id"]]["repeats"] = 0


def stranger_not_told(world: World) -> None:
    """A channel that used another one's id was not refused."""
    world.sales.replies = [one for one in world.sales.replies if one["channel_id"] == "houston"]


def customer_not_forwarded(world: World) -> None:
    """An order's customer event was dropped."""
    world.sales.sent[0]["customer_event"] += b"?"
    world.sales.places.clear()
    writer = Writer(world.bootstrap_servers, world.prefix, world.journal)
    writer.sell(world.sales.sent[0])
    writer.flush()


def transaction_of_aborted_record(world: World) -> None:
    """A transaction came from where there is none."""
    world.sales.transactions[world.sales.sent[4]["transaction_id"]]["offset"] = 999


def sold_offset_ahead_of_database(world: World) -> None:
    """The group of transactions has read what the database has not."""
    world.sales.group_offsets[max(world.sales.positions)] += 1


def sales_order_twice(world: World) -> None:
    """An order that came twice became two sales orders. The table would refuse that, so one of another id stands in."""
    twice = deepcopy(world.sales.orders[1])
    world.sales.orders.append(twice | {"sales_order": "SO-00000004", "transaction_id": world.store.guid()})
    world.sales.next_number += 1


def sales_order_missing(world: World) -> None:
    """An order is synchronized, and there is no sales order: with its number a gap."""
    del world.sales.orders[1]


def line_missing(world: World) -> None:
    """A sales order lacks a line."""
    _lines_of(world, world.sales.orders[-1]).pop()


def other_price(world: World) -> None:
    """A line has another amount than was sent."""
    _lines_of(world, world.sales.orders[0])[0]["amount"] = "1000000"


def _lines_of(world: World, order: dict[str, Any]) -> list[dict[str, str]]:
    transaction = world.sales.transactions[order["transaction_id"]]
    lines: list[dict[str, str]] = transaction["content"]["lines"]
    return lines


def gap_in_sales_orders(world: World) -> None:
    """A number was taken, and no sales order has it."""
    world.sales.next_number += 1


def wrong_account_number(world: World) -> None:
    """A sales order was booked on another customer's account number."""
    world.sales.orders[0]["account_number"] = "C-00000003"


def unsynchronized_customer(world: World) -> None:
    """An order went through before its customer."""
    waits = world.sales.transactions[world.sales.sent[4]["transaction_id"]]
    waits |= {"status": "synchronized", "kind": "cash_and_carry"}


def statement_counted_twice(world: World) -> None:
    """A sale that two ends of the day list is in the totals of both."""
    world.sales.statements[world.sales.sent[11]["transaction_id"]]["totals"]["amounts"][0]["amount"] = "-1.05"


def posted_in_none(world: World) -> None:
    """A statement was posted without one of its sales."""
    world.sales.statement_lines.pop(0)


def posted_too_early(world: World) -> None:
    """A statement was posted while one of its sales waited."""
    sale = world.sales.transactions[world.sales.sent[7]["transaction_id"]]
    sale |= {"status": "waiting", "customer_id": world.store.guid()}


def listed_otherwise(world: World) -> None:
    """A statement lists what its end of day does not."""
    world.sales.listed = [one for one in world.sales.listed if one["owned"]]


def owned_by_nobody(world: World) -> None:
    """A sale is on lists, and on each as another's."""
    for one in world.sales.listed:
        if one["transaction_id"] == world.sales.sent[10]["transaction_id"]:
            one["owned"] = False


def forgotten_sale(world: World) -> None:
    """What the end of day did not list is in no statement."""
    world.sales.listed = [one for one in world.sales.listed if one["statement_id"] != ADJUSTMENT]
    lines = world.sales.statement_lines
    world.sales.statement_lines = [one for one in lines if one["statement_id"] != ADJUSTMENT]
    del world.sales.statements[ADJUSTMENT]


def never_posted(world: World) -> None:
    """All is there, and the statement is blocked."""
    world.sales.statements[world.sales.sent[9]["transaction_id"]]["status"] = "blocked"


def control_totals_differ(world: World) -> None:
    """A statement was posted although the channel has another sum."""
    world.sales.statements[world.sales.sent[9]["transaction_id"]]["control_totals"][0]["amount"] = "1"


def last_answer_lost(world: World) -> None:
    """A channel was not told of the last change."""
    world.sales.transactions[world.sales.sent[1]["transaction_id"]]["answer"] = 2


def answer_backwards(world: World) -> None:
    """A channel was told first how it ended."""
    sale = world.sales.transactions[world.sales.sent[6]["transaction_id"]]
    sale["answer"] = 2
    place = next(at for at, one in enumerate(world.sales.replies) if one["event_id"] == sale["transaction_id"])
    before = world.sales.replies[place] | {"transaction_status": "waiting", "account_number": None}
    world.sales.replies[place]["version"] = 2
    world.sales.replies.insert(place + 1, before)


def answer_under_a_number_of_another(world: World) -> None:
    """Two answers have the same number."""
    world.sales.replies.append(world.sales.replies[0] | {"transaction_status": "waiting", "sales_order": None})


def answer_still_due(world: World) -> None:
    """An answer lies in the database for ever."""
    of = world.sales.sent[0]["transaction_id"]
    due = {"answer_count": 1, "channel_ids": ["houston"], "transaction_ids": [of], "payloads": [b""]}
    world.sales.replies_due.append(due)


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
    (stranger_not_told, "T1: no reply to dallas"),
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
]
CLOSED: Final = [
    (statement_counted_twice, "T4: the totals of statement"),
    (posted_in_none, "is posted, and lacks"),
    (posted_too_early, "is posted, and is not a synchronized sale"),
    (owned_by_nobody, "0 statements list it as posted by them"),
    (forgotten_sale, "was sent before an end of its day, and is in no statement"),
]
CLOSED_TOO: Final = [
    (listed_otherwise, "has another list than every end of day of its id"),
    (never_posted, "nothing keeps it from being posted"),
]
CONTROL: Final = [(control_totals_differ, "its control totals differ")]
TOLD: Final = [
    (last_answer_lost, "are [1] of 2"),
    (answer_backwards, "are [2, 1] of 2"),
    (answer_under_a_number_of_another, "T5: two different replies 1 to houston"),
    (answer_still_due, "T5: 1 replies were never sent"),
    (waits_for_nothing, "and its customer is synchronized"),
    (blocked_without_reason, "is blocked, and its event is None"),
]

NUMBERS: Final = [
    (number_twice, "I2: account number C-00000001"),
    (gap, "I3: the continuous sequence of usrt lacks [4]"),
    (vanished_record, "I4: the record acknowledged"),
]
REPEATS: Final = [(two_numbers, "I1: customer"), (repeat_not_counted, "repeats: event")]
LOST: Final = [
    (lost_event, "I4: event"),
    (dead_letter_lost, "I4: async-customers"),
    (answer_lost, "replies: no reply to houston"),
]
DEAD_LETTERS: Final = [
    (log_and_dead_letter, "I4: event"),
    (dead_letter_changed, "I4: the dead letter"),
    (dead_letter_twice, "I4: async-customers"),
]
BACKWARDS: Final = [(version_back, "goes back from version 2 to 1"), (version_back_in_channel, "I5: houston")]
UNEQUAL: Final = [
    (same_version_other_content, "has another content than an earlier record of version 1"),
    (erased_revived, "revives the erased customer"),
]
CHANNEL: Final = [
    (aborted_snapshot_in_channel, "otherwise than the topic has version 1"),
    (surplus_after_resync, "I6: houston has customer"),
    (pending_customer_lost, "I7: houston has lost customer"),
]
CHANNEL_TOO: Final = [(missing_in_channel, "I6: houston lacks customer"), (sent_and_lost, "I4: houston has sent event")]
ABORTED: Final = [(aborted_event_applied, "where no committed record has it")]
ANSWERED: Final = [(answer_of_aborted_attempt, "was answered, and is not in the log")]
DATABASE: Final = [(offset_ahead_of_database, "I9: the group"), (torn_transaction, "I10: customers")]
OVERWRITTEN: Final = [(edit_overwritten, "model: headquarters has customer")]


@pytest.mark.parametrize(
    "bugs",
    [
        *(NUMBERS, REPEATS, LOST, DEAD_LETTERS, BACKWARDS, UNEQUAL),
        *(CHANNEL, CHANNEL_TOO, ABORTED, ANSWERED, DATABASE, OVERWRITTEN),
        *(SOLD, SOLD_TOO, ORDERS, CLOSED, CLOSED_TOO, CONTROL, TOLD),
    ],
    ids=lambda bugs: "+".join(plant.__name__ for plant, _ in bugs),
)
def test_planted_bugs_are_found(world: World, bugs: list[tuple[Callable[[World], None], str]]) -> None:
    """Each of the classic bugs breaks the promise that it must break; some are planted together, to save time."""
    # given
    for plant, _ in bugs:
        plant(world)

    # when
    found = violations(world)

    # then
    missed = [plant.__name__ for plant, sentence in bugs if not any(sentence in one for one in found)]
    assert missed == [], found


def test_hanging_transaction_is_found(world: World) -> None:
    """A transaction that nobody ends hides everything behind it, and is named."""
    # given
    world.write()
    producer = world.producer()
    producer.produce(f"{world.prefix}customers", b"", "k")
    producer.flush()

    # when
    found = checker.violations(world.gather(), world.journal, SETTING)

    # then
    producer.abort_transaction()
    assert [one for one in found if one.startswith("I8: a transaction on")], found


def test_checker_imports_nothing_of_the_product() -> None:
    """What judges the product must not share its code."""
    ours = {"avro", "case", "checker", "closed", "contents", "evidence", "journal", "model", "sold", "states"}
    for name in ours:
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
        modules = [one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        modules += [alias.name for one in ast.walk(tree) if isinstance(one, ast.Import) for alias in one.names]
        roots = {module.split(".")[0] for module in modules}
        assert not roots & {"tenten", "schemas", "producers", "consumers"}, name
        inside = {module for module in modules if module.startswith("tests.")}
        assert inside <= {f"tests.faults.{one}" for one in ours}, name
