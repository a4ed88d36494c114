"""Synchronize orders, and the end of a day: whoever brings a customer, each sale comes through once."""

import random
import secrets
from collections import Counter
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from tests.faults.avro import encode
from tests.faults.evidence import read_topic
from tests.faults.traffic import Event, Store
from tests.sales import Till, Transaction, put, send, status, told, wait_until
from tests.scenes import Scene, set_scene, wait_for

NUMBER: Final = "C-00000001"


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)


@pytest.fixture
def houston() -> Store:
    """The customers of a store, seeded."""
    return Store(channel_id="houston", legal_entity="usrt", rng=random.Random(1))


@pytest.fixture
def till() -> Till:
    """The till of the same store."""
    return Till(channel_id="houston")


def only_order(scene: Scene) -> dict[str, Any]:
    """The one sales order that there is."""
    (order,) = scene.query("SELECT * FROM sales_orders")
    return order


def test_sale_to_nobody_and_an_order_are_let_through_at_once(scene: Scene, till: Till) -> None:
    """Without a customer there is nothing to wait for; the order has a number, its lines, and an answer."""
    # given
    order, sale = till.order(), till.sale()

    # when
    with scene.transactions():
        send(scene, order, sale)
        answer = told(scene, order, "synchronized")
        told(scene, sale, "synchronized")

    # then
    assert (answer["sales_order"], answer["outcome"], answer["account_number"]) == ("SO-00000001", "SYNCHRONIZED", None)
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
def test_order_brings_its_customer_along_whoever_comes_first(
    scene: Scene, houston: Store, till: Till, way: Callable[[Scene, Transaction, Event], None]
) -> None:
    """One account number, one sales order, and a snapshot for every channel, whatever comes first, later, twice or
    never.
    """
    # given
    event = houston.create()
    order = till.order(event)

    # when
    with scene.headquarters(), scene.transactions():
        way(scene, order, event)
        row = wait_until(scene, order, "synchronized")
        answer = told(scene, order, "synchronized")

    # then
    assert (row["account_number"], answer["account_number"], answer["sales_order"]) == (NUMBER, NUMBER, "SO-00000001")
    assert only_order(scene)["account_number"] == NUMBER
    assert [one["account_number"] for one in scene.query("SELECT account_number FROM customers")] == [NUMBER]
    with scene.follow("customers", "Customer") as snapshots:
        found: dict[str, Any] = {}

        def has_come() -> bool:
            found.update(snapshots.more())
            return event["customer_id"] in found

        wait_for(has_come, "a snapshot")
    assert found[event["customer_id"]]["account_number"] == NUMBER


def test_order_waits_for_an_unknown_customer_and_is_released_by_it(scene: Scene, houston: Store, till: Till) -> None:
    """It waits alone, says so, and comes through when somebody brings the customer; others pass it meanwhile."""
    # given
    event = houston.create()
    order = till.order(customer_id=event["customer_id"])
    other = till.order()

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order, other)
        waiting = told(scene, order, "waiting")
        wait_until(scene, other, "synchronized")
        scene.send(event)
        told(scene, order, "synchronized")

    # then
    assert (waiting["outcome"], waiting["sales_order"]) == ("SYNCHRONIZED", None)
    assert status(scene, order)["account_number"] == NUMBER


def test_order_of_a_rejected_customer_is_blocked_until_the_correction(scene: Scene, houston: Store, till: Till) -> None:
    """It shows the customer's reasons, and goes through by itself once the customer is corrected."""
    # given
    wrong = houston.create(first_name="", last_name=" ")
    order = till.order(wrong)

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order)
        blocked = told(scene, order, "blocked")
        correction = houston.edit(wrong["customer_id"], [wrong], last_name="Lee")
        scene.send(correction)
        told(scene, order, "synchronized")

    # then
    assert [(why["field"], why["code"]) for why in blocked["reasons"]] == [("last_name", "required")]
    assert only_order(scene)["account_number"] == NUMBER


def test_order_of_an_erased_customer_goes_through_under_its_account_number(
    scene: Scene, houston: Store, till: Till
) -> None:
    """Erasure keeps the number for those who are late."""
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


def test_rejected_edit_does_not_hold_an_order_whose_customer_is_known(scene: Scene, houston: Store, till: Till) -> None:
    """The order needs the customer and its address, and both are there."""
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


def test_broken_rules_are_answered_and_written_nowhere(scene: Scene, till: Till) -> None:
    """Each rejected order has its reasons in the answer; its neighbours go through; sent again it is judged anew."""
    # given
    orders = {name: till.order(**fields) for name, (fields, _, _) in WRONG.items()}
    good = till.order()

    # when
    with scene.transactions():
        send(scene, *orders.values(), good)
        answers = {name: told(scene, order, "rejected") for name, order in orders.items()}
        wait_until(scene, good, "synchronized")
        send(scene, orders["total"] | {"total": Decimal("50.91")})
        mended = told(scene, orders["total"], "synchronized")

    # then
    found = {name: {(why["field"], why["code"]) for why in answer["reasons"]} for name, answer in answers.items()}
    for name, (_, field, code) in WRONG.items():
        assert (field, code) in found[name], name
        assert answers[name]["outcome"] == "REJECTED"
    # The first answer was the rejection, the second that it is judged anew.
    assert (mended["version"], mended["sales_order"]) == (3, "SO-00000002")
    assert len(scene.query("SELECT * FROM sales_orders")) == 2


def test_what_cannot_be_read_is_a_dead_letter_and_harms_no_neighbour(scene: Scene, till: Till) -> None:
    """Its bytes are on retail-transactions.dlq; what came before and after it goes through."""
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
    assert [one["partition"] for one in scene.query("SELECT partition FROM positions")] != []
    assert len(scene.query("SELECT * FROM retail_transactions")) == 2


def test_poison_is_dead_letters_and_stops_nothing(scene: Scene, till: Till) -> None:
    """Garbage, truncated and foreign records, numbers out of every range, names without end, between good orders:
    each is one dead letter byte for byte or an answer, and every good order goes through.
    """
    # given
    chance = random.Random(secrets.randbits(32))
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
    records = [(b"houston", one) for one in poison] + wrong_keys
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
        for one in wild:
            wait_until(scene, one, "rejected")

    # then
    letters = read_topic(scene.bootstrap_servers, scene.prefix, "retail-transactions.dlq")
    assert Counter((one.key, one.value) for one in letters) == Counter(records)
    assert len(scene.query("SELECT * FROM sales_orders")) == len(good)


def test_what_the_database_refuses_is_a_dead_letter_alone(scene: Scene, till: Till) -> None:
    """The batch is halved until the one record is found; its neighbours go through."""
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
    """It is noted when somebody was told; the order waits on, and comes through with its customer."""
    # given
    scene.toml.write_text(scene.toml.read_text().replace("[headquarters]", "[headquarters]\nwaiting_seconds_max = 1"))
    event = houston.create()
    order = till.order(customer_id=event["customer_id"])

    # when
    with scene.headquarters(), scene.transactions():
        send(scene, order)
        wait_for(lambda: status(scene, order).get("alarmed_at") is not None, "an alarm")
        told_at = status(scene, order)["alarmed_at"]
        other = till.order()
        send(scene, other)
        wait_until(scene, other, "synchronized")
        assert status(scene, order)["alarmed_at"] == told_at
        scene.send(event)
        wait_until(scene, order, "synchronized")


def test_id_of_another_channel_is_refused(scene: Scene, till: Till) -> None:
    """A transaction belongs to the channel that sent it first; who sends it again is told so again, by a later answer,
    for a store keeps the newest.
    """
    # given
    order = till.order()
    other = order | {"channel_id": "dallas"}
    answers: list[dict[str, Any]] = []

    # when
    with scene.transactions(), scene.follow("channel-replies", "Reply") as replies:

        def are_there(count: int) -> bool:
            answers.extend(one for key, one in replies.more() if key == "dallas" and one is not None)
            return len(answers) == count

        send(scene, order)
        wait_until(scene, order, "synchronized")
        for count in (1, 2):
            send(scene, other)
            wait_for(partial(are_there, count), "the answer to dallas")

    # then
    assert {(one["transaction_status"], one["reasons"][0]["code"]) for one in answers} == {("rejected", "duplicate")}
    assert answers[0]["version"] < answers[1]["version"]
    assert status(scene, order)["channel_id"] == "houston"


# The end of a day.


def test_end_of_day_is_posted_when_everything_is_there_and_synchronized(
    scene: Scene, houston: Store, till: Till
) -> None:
    """Blocked with every reason, then posted by itself; totals to the cent, in two currencies, returns included."""
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
        blocked = told(scene, day, "blocked")
        scene.send(event)
        wait_until(scene, waiting, "synchronized")
        send(scene, missing)
        told(scene, day, "posted")

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
    assert [(one["account_number"], one["total"]) for one in lines] == [
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
        answer = told(scene, day, "blocked")

    # then
    (reason,) = answer["reasons"]
    assert (reason["field"], reason["code"]) == ("control_totals/USD/CASH", "does_not_add_up")
    assert reason["text"] == "The channel has 4, headquarters 4.5."
    assert scene.query("SELECT * FROM statement_lines") == []


def test_day_that_is_closed_twice_and_late_sales_are_in_one_statement_each(scene: Scene, till: Till) -> None:
    """The same end of day again only counts; another one posts what came late, and what is listed twice once."""
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
    assert {one["transaction_id"]: one["statement_id"] for one in lines} == {
        early["transaction_id"]: first["transaction_id"],
        late["transaction_id"]: second["transaction_id"],
    }


def test_channel_that_lists_anothers_sale_takes_nothing_from_it(scene: Scene, till: Till) -> None:
    """Its own statement is blocked; the other's is posted with the sale in it."""
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
    """What only a later part lists is not forgotten: a part that is not the last says so."""
    # given
    first, second = till.sale(), till.sale(("TEA", "1", "2.00"))
    parts = [till.end_of_day([first]) | {"complete": False}, till.end_of_day([second])]

    # when
    with scene.transactions():
        send(scene, first, second, *parts)
        posted = [wait_until(scene, part, "posted") for part in parts]

    # then
    assert [one["totals"]["transactions"] for one in posted] == [1, 1]
    assert [one["kind"] for one in scene.query("SELECT kind FROM statements")] == ["end_of_day"] * 2


def test_what_cannot_be_let_through_is_blocked_alone(scene: Scene, till: Till) -> None:
    """A refusal of the database while orders are let through holds up no other order."""
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
    assert [one["sales_order"] for one in numbers] == [f"SO-0000000{number}" for number in range(1, 6)]


def test_order_of_a_customer_that_the_database_refused_goes_through_once_it_does_not(
    scene: Scene, houston: Store, till: Till
) -> None:
    """Blocked like any whose customer is rejected, and let through by the correction."""
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


def test_what_is_wrong_with_the_database_itself_stops_the_worker_and_loses_nothing(scene: Scene, till: Till) -> None:
    """No transaction is to blame, so none becomes a dead letter; the next worker goes on where this one stopped."""
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


def test_customer_of_another_legal_entity_lets_no_order_through(scene: Scene, houston: Store, till: Till) -> None:
    """Its account number would be somebody else's there."""
    # given
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(5))
    event = munich.create()
    order = till.order(customer_id=event["customer_id"])

    # when
    with scene.headquarters(), scene.transactions():
        scene.ask(event)
        send(scene, order)
        answer = told(scene, order, "waiting")

    # then
    assert answer["sales_order"] is None
    assert scene.query("SELECT * FROM sales_orders") == []


def test_what_a_restored_store_has_forgotten_is_an_adjustment(scene: Scene, till: Till) -> None:
    """Headquarters has more of the day than the end of day lists: a statement of its own, named so."""
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
    assert [(one["number"], one["kind"], one["status"]) for one in rows] == [
        (1, "end_of_day", "posted"),
        (2, "adjustment", "posted"),
    ]
    assert rows[1]["totals"]["amounts"] == [{"currency": "USD", "payment_method": "CASH", "amount": "7"}]
    lines = {str(one["transaction_id"]) for one in scene.query("SELECT transaction_id FROM statement_lines")}
    assert late["transaction_id"] not in lines


def test_day_without_sales_is_posted_empty(scene: Scene, till: Till) -> None:
    """Nothing was sold, and that is counted."""
    # given
    day = till.end_of_day()

    # when
    with scene.transactions():
        send(scene, day)
        wait_until(scene, day, "posted")

    # then
    assert status(scene, day)["totals"] == {"transactions": 0, "amounts": []}


def test_rejected_end_of_day_says_why(scene: Scene, till: Till) -> None:
    """What it lists must be ids, each once."""
    # given
    sale = till.sale()
    twice = till.end_of_day([sale, sale])
    nonsense = till.end_of_day([]) | {"listed": ["x"]}

    # when
    with scene.transactions():
        send(scene, sale, twice, nonsense)
        answers = [told(scene, one, "rejected") for one in (twice, nonsense)]

    # then
    assert [one["reasons"][0]["code"] for one in answers] == ["duplicate", "invalid_id"]


def test_sequence_of_sales_orders_that_has_run_out_blocks_and_goes_on_with_a_longer_one(
    scene: Scene, till: Till
) -> None:
    """No order is lost; the next round after the change lets it through."""
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
    assert [one["sales_order"] for one in orders] == ["S-10", "S-9"]
