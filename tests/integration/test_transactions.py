"""The transactions worker: orders, cash-and-carry sales and ends of day, each released once, in any order."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.faults.avro import decode, encode
from tests.faults.evidence import read_topic
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Event, Store
from tests.sales import Till, Transaction, put, reply_with_status, send, status, wait_until
from tests.scenes import Scene
from tests.settings_file import PARTITIONS
from tests.waiting import wait_for

NUMBER: Final = "C-00000001"


@pytest.fixture
def till() -> Till:
    """The till of the same store."""
    return Till(channel_id="houston")


def only_order(scene: Scene) -> dict[str, Any]:
    """The only sales order."""
    (order,) = scene.query("SELECT * FROM sales_orders")
    return order


def test_transactions_without_customer_are_released_immediately(scene: Scene, till: Till) -> None:
    """Without a customer they wait for nothing; the order has a number, its lines, and a reply."""
    # given
    order, sale = till.order(), till.sale()

    # when
    with scene.transactions():
        send(scene, order, sale)
        reply = reply_with_status(scene, order, "synchronized")
        reply_with_status(scene, sale, "synchronized")

    # then
    assert (reply["sales_order"], reply["reasons"]) == ("SO-00000001", [])
    row = status(scene, order)
    assert (reply["input_partition"], reply["input_offset"]) == (row["partition"], row["offset"])
    found = only_order(scene)
    assert (found["transaction_id"], found["total"]) == (_guid(order), Decimal("50.91"))
    lines = scene.query("SELECT sku, quantity, price, amount FROM sales_order_lines ORDER BY line_number")
    assert lines == [
        {"sku": "LAMP", "quantity": Decimal(1), "price": Decimal("49.9"), "amount": Decimal("49.9")},
        {"sku": "BULB", "quantity": Decimal(3), "price": Decimal("0.335"), "amount": Decimal("1.01")},
    ]


def _guid(transaction: Transaction) -> UUID:
    return UUID(transaction["transaction_id"])


def _order_first(scene: Scene, order: Transaction, event: Event) -> None:
    send(scene, order)
    wait_until(scene, order, "synchronized")
    scene.ask(event)


def _customer_first(scene: Scene, order: Transaction, event: Event) -> None:
    scene.ask(event)
    send(scene, order)


def _both_twice(scene: Scene, order: Transaction, event: Event) -> None:
    scene.send(event, event)
    send(scene, order, order)
    scene.send(event)
    send(scene, order)


def _customer_never(scene: Scene, order: Transaction, _: Event) -> None:
    send(scene, order)


@pytest.mark.parametrize("way", [_order_first, _customer_first, _both_twice, _customer_never])
def test_order_and_its_customer_may_arrive_in_any_order(
    scene: Scene, houston: Store, till: Till, way: Callable[[Scene, Transaction, Event], None]
) -> None:
    """One account number, one sales order and one snapshot, whichever arrives first, twice or never."""
    # given
    event = houston.create()
    order = till.order(event)

    # when
    with scene.headquarters(), scene.transactions():
        way(scene, order, event)
        row = wait_until(scene, order, "synchronized")
        reply = reply_with_status(scene, order, "synchronized")

    # then
    assert (row["account_number"], reply["sales_order"]) == (NUMBER, "SO-00000001")
    assert only_order(scene)["account_number"] == NUMBER
    assert [row["account_number"] for row in scene.query("SELECT account_number FROM customers")] == [NUMBER]
    with scene.follow("customers", "Customer") as snapshots:
        found: dict[str, Any] = {}

        def has_arrived() -> bool:
            found.update(snapshots.more())
            return event["customer_id"] in found

        wait_for(has_arrived, "a snapshot")
    assert found[event["customer_id"]]["account_number"] == NUMBER


def test_order_waits_for_an_unknown_customer_and_is_released_by_it(scene: Scene, houston: Store, till: Till) -> None:
    """The channel receives a reply that it waits; other orders are released meanwhile."""
    # given
    event = houston.create()
    order = till.order(customer_id=event["customer_id"])
    other = till.order()

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order, other)
        waiting = reply_with_status(scene, order, "waiting")
        wait_until(scene, other, "synchronized")
        scene.send(event)
        reply_with_status(scene, order, "synchronized")

    # then
    assert (waiting["sequence"], waiting["sales_order"]) == (1, None)
    assert codes(waiting) == ["unknown_customer"]
    assert status(scene, order)["account_number"] == NUMBER


def codes(reply: dict[str, Any]) -> list[str]:
    """The codes of the reasons of a reply."""
    return [reason["code"] for reason in reply["reasons"]]


def test_transactions_wait_with_the_reason_for_which_their_customer_is_held(
    scene: Scene, houston: Store, till: Till
) -> None:
    """Whether the customer came with the transaction or alone, before or after it; then everything is released."""
    # given
    scene.query("UPDATE number_sequences SET format = 'C-#', next = 10 WHERE legal_entity = 'usrt'")
    inside, alone, late = houston.create(), houston.create(), houston.create()
    order, sale = till.order(inside), till.sale(event=alone, customer_event=None, customer_event_id=None)
    early = till.order(customer_id=late["customer_id"])
    day = till.end_of_day()

    # when
    with scene.headquarters(), scene.transactions():
        scene.send(alone)
        send(scene, order, sale, early, day)
        before = reply_with_status(scene, early, "waiting")
        scene.send(late)
        wait_for(lambda: used_up(scene) == 3, "the reason of each")
        scene.query("UPDATE number_sequences SET format = 'C-####' WHERE legal_entity = 'usrt'")
        for transaction in (order, sale, early):
            reply_with_status(scene, transaction, "synchronized")
        wait_until(scene, day, "posted")

    # then
    assert codes(before) == ["unknown_customer"]
    replies = scene_replies(scene, early)
    assert [codes(reply) for reply in replies] == [["unknown_customer"], ["number_sequence_used_up"], []]


def test_order_waits_for_the_held_change_of_a_known_customer(scene: Scene, houston: Store, till: Till) -> None:
    """The change names a legal entity that headquarters does not have; the correction supersedes it."""
    # given
    known = houston.create()
    edit = houston.edit(known["customer_id"], title="Dr.")
    edit["customer"]["legal_entity"] = "frrt"
    order = till.order(edit)

    # when
    with scene.headquarters(), scene.transactions():
        scene.ask(known)
        send(scene, order)
        waiting = reply_with_status(scene, order, "waiting")
        scene.send(houston.edit(known["customer_id"], [edit], title="Prof."))
        reply_with_status(scene, order, "synchronized")

    # then
    assert codes(waiting) == ["unknown_legal_entity"]


def used_up(scene: Scene) -> int:
    """How many transactions wait for an account number."""
    waiting = "SELECT 1 FROM retail_transactions WHERE status = 'waiting' AND reasons::text LIKE '%%used_up%%'"
    return len(scene.query(waiting))


def scene_replies(scene: Scene, transaction: Transaction) -> list[dict[str, Any]]:
    """All replies to a transaction, each once, in the order of their numbers."""
    records = read_topic(scene.bootstrap_servers, scene.prefix, "transaction-replies")
    replies = [decode("TransactionReply", record.value or b"") for record in records]
    own = {reply["sequence"]: reply for reply in replies if reply["transaction_id"] == transaction["transaction_id"]}
    return [own[sequence] for sequence in sorted(own)]


def test_order_of_a_rejected_customer_is_blocked_until_the_correction(scene: Scene, houston: Store, till: Till) -> None:
    """It has the reasons of the customer, and is released automatically after the correction."""
    # given
    wrong = houston.create(first_name="", last_name=" ")
    order = till.order(wrong)

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order)
        blocked = reply_with_status(scene, order, "blocked")
        correction = houston.edit(wrong["customer_id"], [wrong], last_name="Lee")
        scene.send(correction)
        reply_with_status(scene, order, "synchronized")

    # then
    assert [(why["field"], why["code"]) for why in blocked["reasons"]] == [("last_name", "required")]
    assert only_order(scene)["account_number"] == NUMBER


def test_order_of_an_erased_customer_is_released_with_its_account_number(
    scene: Scene, houston: Store, till: Till
) -> None:
    """Erasure keeps the account number for late transactions."""
    # given
    event = houston.create()

    # when
    with scene.headquarters(), scene.transactions():
        scene.ask(event)
        scene.ask(houston.erase(event["customer_id"]))
        order = till.order(event)
        send(scene, order)
        wait_until(scene, order, "synchronized")

    # then
    assert only_order(scene)["account_number"] == NUMBER


def test_rejected_edit_does_not_block_an_order_whose_customer_is_known(
    scene: Scene, houston: Store, till: Till
) -> None:
    """The order needs only the customer and the delivery address, and both exist."""
    # given
    created = houston.create()
    wrong = houston.edit(created["customer_id"], [], first_name="", last_name="")
    at_home = created["customer"]["addresses"][0]
    address = {name: at_home.get(name, "") for name in ("address_id", "street", "city", "country")}
    address |= dict.fromkeys(("name", "county", "state", "postal_code"), "")
    unknown = {**address, "address_id": str(uuid4())}

    # when
    with scene.headquarters(), scene.transactions():
        scene.ask(created)
        known = till.order(wrong, delivery_address=address)
        elsewhere = till.order(wrong, delivery_address=unknown)
        send(scene, known, elsewhere)
        wait_until(scene, known, "synchronized")
        wait_until(scene, elsewhere, "blocked")

    # then
    assert status(scene, elsewhere)["reasons"][0]["code"] == "required"


WRONG: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "currency": ({"currency": "XYZ"}, "currency", "unknown_currency"),
    "total": ({"total": Decimal("1.00")}, "total", "does_not_add_up"),
    "lines": ({"lines": [], "total": Decimal(0)}, "lines", "required"),
    "legal entity": ({"legal_entity": "demf"}, "legal_entity", "other_legal_entity"),
    "customer": ({"customer_id": "nobody"}, "customer_id", "invalid_id"),
    "payments": ({"payments": [{"method": "CASH", "amount": Decimal(99)}]}, "payments", "does_not_add_up"),
    "list": ({"listed": ["x"]}, "listed", "misplaced"),
}


def test_invalid_orders_are_rejected_with_reasons(scene: Scene, till: Till) -> None:
    """The reply has the reasons; other orders are released; a corrected order is checked again."""
    # given
    orders = {name: till.order(**fields) for name, (fields, _, _) in WRONG.items()}
    good = till.order()

    # when
    with scene.transactions():
        send(scene, *orders.values(), good)
        replies = {name: reply_with_status(scene, order, "rejected") for name, order in orders.items()}
        wait_until(scene, good, "synchronized")
        send(scene, orders["total"] | {"total": Decimal("50.91")})
        corrected = reply_with_status(scene, orders["total"], "synchronized")

    # then
    found = {name: {(why["field"], why["code"]) for why in reply["reasons"]} for name, reply in replies.items()}
    for name, (_, field, code) in WRONG.items():
        assert (field, code) in found[name], name
        assert replies[name]["sequence"] == 1
    # The first reply was the rejection, the second that the corrected order waits.
    assert (corrected["sequence"], corrected["sales_order"]) == (3, "SO-00000002")
    assert len(scene.query("SELECT * FROM sales_orders")) == 2


def test_unreadable_records_are_dead_letters_and_block_nothing(scene: Scene, till: Till) -> None:
    """The orders before and after them are released."""
    # given
    first, second = till.order(), till.order()

    # when
    with scene.transactions():
        send(scene, first)
        put(scene, (b"houston", b"broken"), (b"houston", None))
        send(scene, second)
        wait_until(scene, first, "synchronized")
        wait_until(scene, second, "synchronized")

    # then
    assert [row["partition"] for row in scene.query("SELECT partition FROM positions")] != []
    assert len(scene.query("SELECT * FROM retail_transactions")) == 2


def test_poison_becomes_dead_letters_and_blocks_nothing(scene: Scene, till: Till) -> None:
    """Garbage, truncated records, other contracts, huge numbers and names between good orders: each is one dead letter
    byte for byte, or rejected, and every good order is released.
    """
    # given
    chance = random.Random(1010)
    good = [till.order() for _ in range(30)]
    whole = encode("RetailTransaction", till.order())
    poison = [chance.randbytes(chance.randrange(1, 200)) for _ in range(100)]
    poison += [whole[: chance.randrange(len(whole))] for _ in range(50)]
    poison += [
        whole + b"\x00",
        encode("CustomerEvent", Store(channel_id="houston", legal_entity="usrt", rng=chance).create()),
    ]
    wrong_keys = [(b"dallas", whole), (None, whole), (b"houston", None)]
    long_name = "h" * 100_000
    records = [(b"houston", value) for value in poison] + wrong_keys
    records.append((long_name.encode(), encode("RetailTransaction", till.order(channel_id=long_name))))
    wild = [
        till.order(total=Decimal(10) ** 21),
        till.order(lines=[{name: Decimal(10) ** 21 for name in ("quantity", "price", "amount")} | {"sku": "X"}]),
        till.order(lines=[{name: Decimal(10) ** 14 for name in ("quantity", "price", "amount")} | {"sku": "X"}]),
        till.order(currency="\u20ac" * 1000, delivery_mode="x" * 10_000),
        till.order(business_date=date(9999, 12, 30)) | {"listed": ["x"] * 100},
        till.end_of_day([]) | {"control_totals": [{"currency": "", "payment_method": "", "amount": Decimal(-1)}]},
    ]

    # when
    with scene.transactions():
        for number, order in enumerate(good):
            send(scene, order)
            put(scene, *records[number :: len(good)])
        send(scene, *wild)
        for order in good:
            wait_until(scene, order, "synchronized")
        for row in wild:
            wait_until(scene, row, "rejected")

    # then
    letters = read_topic(scene.bootstrap_servers, scene.prefix, "retail-transactions.dlq")
    assert Counter((row.key, row.value) for row in letters) == Counter(records)
    assert len(scene.query("SELECT * FROM sales_orders")) == len(good)


def test_record_that_the_database_rejects_is_the_only_dead_letter(scene: Scene, till: Till) -> None:
    """The batch is halved until the record is found; all others are released."""
    # given
    scene.query("ALTER TABLE retail_transactions ADD CHECK (position('REFUSED' IN content::text) = 0)")
    orders = [till.order() for _ in range(20)]
    refused = till.order()
    refused["lines"][0]["sku"] = "REFUSED"

    # when
    with scene.transactions():
        send(scene, *orders[:10], refused, *orders[10:])
        for order in orders:
            wait_until(scene, order, "synchronized")

    # then
    (letter,) = read_topic(scene.bootstrap_servers, scene.prefix, "retail-transactions.dlq")
    assert letter.value == encode("RetailTransaction", refused)
    assert dict(letter.headers)["x-dlq-reason"] == b"database_refused"
    assert status(scene, refused) == {}


def test_order_that_waits_for_too_long_raises_an_alarm_once(scene: Scene, houston: Store, till: Till) -> None:
    """The time of the alarm is stored; the order keeps waiting, and is released with its customer."""
    # given
    scene.toml.write_text(scene.toml.read_text().replace("[headquarters]", "[headquarters]\nwaiting_seconds_max = 1"))
    event = houston.create()
    order = till.order(customer_id=event["customer_id"])

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order)
        wait_for(lambda: status(scene, order).get("alarmed_at") is not None, "an alarm")
        alarmed_at = status(scene, order)["alarmed_at"]
        other = till.order()
        send(scene, other)
        wait_until(scene, other, "synchronized")
        assert status(scene, order)["alarmed_at"] == alarmed_at
        scene.send(event)
        wait_until(scene, order, "synchronized")


def test_id_of_another_channels_transaction_is_rejected(scene: Scene, till: Till) -> None:
    """A transaction belongs to the channel that sent it first. Each rejection has a higher number than the one before,
    because a store keeps the newest.
    """
    # given
    order = till.order()
    other = order | {"channel_id": "dallas"}
    rejections: list[dict[str, Any]] = []

    # when
    with scene.transactions(), scene.follow("transaction-replies", "TransactionReply") as replies:

        def are_received(count: int) -> bool:
            rejections.extend(row for key, row in replies.more() if key == "dallas" and row is not None)
            return len(rejections) == count

        send(scene, order)
        wait_until(scene, order, "synchronized")
        for count in (1, 2):
            send(scene, other)
            wait_for(partial(are_received, count), "the reply to dallas")

    # then
    assert {(row["status"], row["reasons"][0]["code"]) for row in rejections} == {("rejected", "duplicate")}
    assert rejections[0]["sequence"] < rejections[1]["sequence"]
    assert status(scene, order)["channel_id"] == "houston"


# End of day.


def test_end_of_day_is_posted_when_all_sales_are_synchronized(scene: Scene, houston: Store, till: Till) -> None:
    """Blocked with every reason, then posted automatically; totals to the cent, in two currencies, with returns."""
    # given
    event = houston.create()
    waiting = till.sale(("CUP", "2", "4.45"), event=event, customer_event=None, customer_event_id=None)
    returned = till.sale(("CUP", "-1", "4.50"))
    till.currency = "EUR"
    euros = till.sale(("TEA", "3", "1.10"), payments=[{"method": "CARD", "amount": Decimal("3.30")}])
    missing = till.sale(("TEA", "1", "1.15"))
    day = till.end_of_day()

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, waiting, returned, euros, day)
        blocked = reply_with_status(scene, day, "blocked")
        scene.send(event)
        wait_until(scene, waiting, "synchronized")
        send(scene, missing)
        reply_with_status(scene, day, "posted")

    # then
    assert {(why["field"], why["code"]) for why in blocked["reasons"]} == {
        (waiting["transaction_id"], "waiting"),
        (missing["transaction_id"], "missing"),
    }
    row = status(scene, day)
    assert (row["status"], row["reasons"], row["kind"]) == ("posted", [], "end_of_day")
    assert row["totals"] == {
        "transactions": 4,
        "amounts": [
            {"currency": "EUR", "payment_method": "CARD", "amount": "3.3"},
            {"currency": "EUR", "payment_method": "CASH", "amount": "1.15"},
            {"currency": "USD", "payment_method": "CASH", "amount": "4.4"},
        ],
    }
    lines = scene.query("SELECT account_number, total FROM statement_lines ORDER BY total")
    assert [(row["account_number"], row["total"]) for row in lines] == [
        (None, Decimal("-4.5")),
        (None, Decimal("1.15")),
        (None, Decimal("3.3")),
        (NUMBER, Decimal("8.9")),
    ]


def test_control_totals_that_differ_block_the_statement(scene: Scene, till: Till) -> None:
    """The reason names both sums."""
    # given
    sale = till.sale()
    wrong = [{"currency": "USD", "payment_method": "CASH", "amount": Decimal("4.00")}]
    day = till.end_of_day(control_totals=wrong)

    # when
    with scene.transactions():
        send(scene, sale, day)
        reply = reply_with_status(scene, day, "blocked")

    # then
    (reason,) = reply["reasons"]
    assert (reason["field"], reason["code"]) == ("control_totals/USD/CASH", "does_not_add_up")
    assert reason["text"] == "The store reports 4, headquarters has 4.5."
    assert scene.query("SELECT * FROM statement_lines") == []


def test_each_sale_of_a_day_closed_twice_is_in_one_statement(scene: Scene, till: Till) -> None:
    """A repeated end of day is only counted; another one posts late sales, and no sale twice."""
    # given
    early, late = till.sale(), till.sale(("TEA", "1", "2.00"))
    first = till.end_of_day([early])
    second = till.end_of_day([early, late])

    # when
    with scene.transactions():
        send(scene, early, first, first, late, second)
        wait_until(scene, first, "posted")
        wait_until(scene, second, "posted")

    # then
    assert status(scene, first)["repeats"] == 1
    assert (status(scene, first)["number"], status(scene, second)["number"]) == (1, 2)
    assert status(scene, second)["totals"]["transactions"] == 1
    lines = scene.query("SELECT transaction_id::text, statement_id::text FROM statement_lines")
    assert {row["transaction_id"]: row["statement_id"] for row in lines} == {
        early["transaction_id"]: first["transaction_id"],
        late["transaction_id"]: second["transaction_id"],
    }


def test_channel_cannot_post_a_sale_of_another_channel(scene: Scene, till: Till) -> None:
    """Its own statement is blocked; the statement of the other channel is posted with the sale."""
    # given
    sale = till.sale()
    thief = Till(channel_id="dallas", rng=random.Random(9)).end_of_day([sale])
    day = till.end_of_day([sale])

    # when
    with scene.transactions():
        send(scene, sale)
        wait_until(scene, sale, "synchronized")
        send(scene, thief)
        blocked = wait_until(scene, thief, "blocked")
        send(scene, day)
        posted = wait_until(scene, day, "posted")

    # then
    assert blocked["reasons"][0]["code"] == "misplaced"
    assert posted["totals"]["transactions"] == 1


def test_day_that_is_closed_in_parts_has_no_adjustment(scene: Scene, till: Till) -> None:
    """Sales that only a later part lists are not unlisted: `complete` is false in all parts but the last."""
    # given
    first, second = till.sale(), till.sale(("TEA", "1", "2.00"))
    parts = [till.end_of_day([first]) | {"complete": False}, till.end_of_day([second])]

    # when
    with scene.transactions():
        send(scene, first, second, *parts)
        posted = [wait_until(scene, part, "posted") for part in parts]

    # then
    assert [row["totals"]["transactions"] for row in posted] == [1, 1]
    assert [row["kind"] for row in scene.query("SELECT kind FROM statements")] == ["end_of_day"] * 2


def test_order_that_the_database_rejects_is_the_only_blocked_one(scene: Scene, till: Till) -> None:
    """All other orders of the release pass are released."""
    # given
    scene.query("ALTER TABLE sales_orders ADD CHECK (delivery_mode <> 'REFUSED')")
    orders = [till.order() for _ in range(5)]
    refused = till.order(delivery_mode="REFUSED")

    # when
    with scene.transactions():
        send(scene, *orders[:2], refused, *orders[2:])
        for order in orders:
            wait_until(scene, order, "synchronized")
        blocked = wait_until(scene, refused, "blocked")

    # then
    assert [why["code"] for why in blocked["reasons"]] == ["cannot_be_written"]
    numbers = scene.query("SELECT sales_order FROM sales_orders ORDER BY 1")
    assert [row["sales_order"] for row in numbers] == [f"SO-0000000{number}" for number in range(1, 6)]


def test_order_of_a_customer_that_the_database_rejected_is_released_by_the_correction(
    scene: Scene, houston: Store, till: Till
) -> None:
    """It is blocked like any order with a rejected customer."""
    # given
    scene.query("ALTER TABLE customers ADD CONSTRAINT no_tables CHECK (last_name <> 'Tables')")
    event = houston.create()
    event["customer"]["last_name"] = "Tables"
    order = till.order(event)

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order)
        blocked = wait_until(scene, order, "blocked")
        scene.query("ALTER TABLE customers DROP CONSTRAINT no_tables")
        scene.ask(houston.edit(event["customer_id"], title="Dr."))
        wait_until(scene, order, "synchronized")

    # then
    assert [why["code"] for why in blocked["reasons"]] == ["database_refused"]
    assert only_order(scene)["account_number"] == NUMBER


def test_schema_error_stops_worker_without_data_loss(scene: Scene, till: Till) -> None:
    """No transaction becomes a dead letter; the next worker continues where this one stopped."""
    # given
    orders = [till.order() for _ in range(3)]
    scene.query("ALTER TABLE retail_transactions RENAME TO elsewhere")

    # when
    with scene.transactions() as worker:
        send(scene, *orders)
        failure = worker.dies()
    scene.query("ALTER TABLE elsewhere RENAME TO retail_transactions")
    with scene.transactions():
        for order in orders:
            wait_until(scene, order, "synchronized")

    # then
    assert "retail_transactions" in str(failure)
    assert read_topic(scene.bootstrap_servers, scene.prefix, "retail-transactions.dlq") == ()


def test_customer_of_another_legal_entity_releases_no_order(scene: Scene, houston: Store, till: Till) -> None:
    """The account number may belong to another customer there."""
    # given
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(5))
    event = munich.create()
    order = till.order(customer_id=event["customer_id"])

    # when
    with scene.headquarters(), scene.transactions():
        scene.ask(event)
        send(scene, order)
        reply = reply_with_status(scene, order, "waiting")

    # then
    assert (reply["sales_order"], codes(reply)) == (None, ["other_legal_entity"])
    assert scene.query("SELECT * FROM sales_orders") == []


def test_sales_that_a_restored_store_lost_become_an_adjustment(scene: Scene, till: Till) -> None:
    """Headquarters has more sales of the day than the end of day lists: they get a statement of their own."""
    # given
    forgotten, known = till.sale(("TEA", "1", "7.00")), till.sale()
    day = till.end_of_day([known])
    late = till.sale(("TEA", "1", "1.00"))

    # when
    with scene.transactions():
        send(scene, forgotten, known, day, late)
        wait_until(scene, day, "posted")
        wait_until(scene, late, "synchronized")

    # then
    rows = scene.query("SELECT number, kind, status, totals FROM statements ORDER BY number")
    assert [(row["number"], row["kind"], row["status"]) for row in rows] == [
        (1, "end_of_day", "posted"),
        (2, "adjustment", "posted"),
    ]
    assert rows[1]["totals"]["amounts"] == [{"currency": "USD", "payment_method": "CASH", "amount": "7"}]
    lines = {str(row["transaction_id"]) for row in scene.query("SELECT transaction_id FROM statement_lines")}
    assert late["transaction_id"] not in lines


def test_day_without_sales_is_posted_empty(scene: Scene, till: Till) -> None:
    """Its statement has no amounts."""
    # given
    day = till.end_of_day()

    # when
    with scene.transactions():
        send(scene, day)
        wait_until(scene, day, "posted")

    # then
    assert status(scene, day)["totals"] == {"transactions": 0, "amounts": []}


def test_rejected_end_of_day_has_reasons(scene: Scene, till: Till) -> None:
    """Each member of its list must be an id, listed once."""
    # given
    sale = till.sale()
    twice = till.end_of_day([sale, sale])
    nonsense = till.end_of_day([]) | {"listed": ["x"]}

    # when
    with scene.transactions():
        send(scene, sale, twice, nonsense)
        replies = [reply_with_status(scene, end_of_day, "rejected") for end_of_day in (twice, nonsense)]

    # then
    assert [row["reasons"][0]["code"] for row in replies] == ["duplicate", "invalid_id"]


def test_rejected_records_that_are_read_again_get_the_same_reply_again(scene: Scene, till: Till) -> None:
    """A higher number would make their store take it for the reply to what a clerk has sent again meanwhile."""
    # given
    order = till.order(currency="XXY")
    day = till.end_of_day([]) | {"listed": ["x"]}
    with scene.transactions():
        send(scene, order, day)
        rejections = [reply_with_status(scene, sent, "rejected") for sent in (order, day)]
        wait_until_settled(scene, "transactions")
    read_from_the_beginning(scene)

    # when
    with scene.transactions():
        wait_for(lambda: all(status(scene, sent)["repeats"] for sent in (order, day)), "the same records again")
        wait_until_settled(scene, "transactions")

    # then
    again = [reply_with_status(scene, sent, "rejected") for sent in (order, day)]
    assert [reply["sequence"] for reply in (*rejections, *again)] == [1] * 4


def read_from_the_beginning(scene: Scene) -> None:
    """Set the group's offsets to the beginning of the topic. The group has no members."""
    topic = f"{scene.prefix}retail-transactions"
    beginnings = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
    group = ConsumerGroupTopicPartitions(f"{scene.prefix}transactions", beginnings)
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    (future,) = admin.alter_consumer_group_offsets([group]).values()
    future.result(20)


def test_operator_is_stored_with_transactions_and_statements(scene: Scene, till: Till) -> None:
    """Null without one, for an adjustment, and for an invalid one, with which a transaction is rejected."""
    # given
    order, unnamed, known = till.order(operator="Bob"), till.order(), till.sale(operator="Ann")
    forgotten = till.sale(operator="Ann")
    day = till.end_of_day([known], operator="Zoë")
    invalid = [till.order(operator="x" * 65), till.sale(operator="a\x00b"), till.end_of_day([], operator="x" * 65)]

    # when
    with scene.transactions():
        send(scene, order, unnamed, known, forgotten, *invalid, day)
        wait_until(scene, day, "posted")
        reasons = [reply_with_status(scene, transaction, "rejected")["reasons"] for transaction in invalid]

    # then
    found = scene.query("SELECT transaction_id, operator FROM retail_transactions")
    assert {str(row["transaction_id"]): row["operator"] for row in found} == {
        **{transaction["transaction_id"]: transaction["operator"] for transaction in (order, known, forgotten)},
        **{transaction["transaction_id"]: None for transaction in (unnamed, *invalid[:2])},
    }
    statements = scene.query("SELECT kind, status, operator FROM statements")
    assert sorted((row["kind"], row["status"], row["operator"] or "") for row in statements) == [
        ("adjustment", "posted", ""),
        ("end_of_day", "posted", "Zoë"),
        ("end_of_day", "rejected", ""),
    ]
    codes = ["too_long", "nul", "too_long"]
    assert [[(why["field"], why["code"]) for why in each] for each in reasons] == [
        [("operator", code)] for code in codes
    ]


def test_orders_are_blocked_while_sales_order_numbers_are_used_up(scene: Scene, till: Till) -> None:
    """No order is lost; the next release pass after a longer format releases it."""
    # given
    scene.query("UPDATE sales_order_sequences SET format = 'S-#', next = 9 WHERE legal_entity = 'usrt'")
    first, second = till.order(), till.order()

    # when
    with scene.transactions():
        send(scene, first, second)
        wait_until(scene, first, "synchronized")
        wait_until(scene, second, "blocked")
        scene.query("UPDATE sales_order_sequences SET format = 'S-##' WHERE legal_entity = 'usrt'")
        wait_until(scene, second, "synchronized")

    # then
    orders = scene.query("SELECT sales_order FROM sales_orders ORDER BY 1")
    assert [row["sales_order"] for row in orders] == ["S-10", "S-9"]
