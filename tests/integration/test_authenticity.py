"""Headquarters believes only records that their channel has signed. With a real broker and a real database."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tenten.avro.wire import contract
from tenten.consumers.headquarters.customers import classify
from tenten.consumers.headquarters.customers import run as customers_worker
from tenten.consumers.headquarters.customers.own_events import send_own_events, touch_of
from tenten.consumers.headquarters.recovery.recover import recover
from tenten.consumers.headquarters.recovery.refused_records import refused_records
from tenten.consumers.headquarters.transactions import run as transactions_worker
from tenten.identity.channel_changes import By
from tenten.identity.store_identity import write_identity
from tenten.identity.suspension import resume
from tenten.kafka.schema_registry import publish_schemas
from tenten.producers import Item, OpenChannel, create_customer, record_order, show_customer, show_transaction
from tenten.runtime.errors import TransactionFailed
from tenten.schemas.topics import ASYNC_CUSTOMERS_DLQ
from tenten.sql.engine import open_database
from tests.conftest import NewDatabase
from tests.faults.avro import decode
from tests.faults.evidence import Record, headers_of, read_topic
from tests.faults.journal import Operation, Writer
from tests.faults.traffic import Store
from tests.flow_scene import PARTS, set_flow
from tests.restores import back_up, restore
from tests.sales import Till, status
from tests.scenes import Scene, set_scene
from tests.signed import Keys, Signature, record_of, record_of_sale
from tests.waiting import wait_for


def scene_with(directory: Path, servers: str, prefix: str, url: str, mode: str, **limits: int) -> Scene:
    """A headquarters with this setting of `authentication`."""
    scene = set_scene(directory, servers, prefix, url, limits=limits, has_tables=False)
    scene.toml.write_text(f'authentication = "{mode}"\n{scene.toml.read_text()}')
    return scene


@pytest.fixture
def new_scene(tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase) -> Callable[[str], Scene]:
    """Returns a headquarters with a setting of `authentication`."""
    return lambda mode: scene_with(tmp_path, bootstrap_servers, prefix, new_database("headquarters"), mode)


@pytest.fixture(params=["one by one", "in columns"])
def in_columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches in plain values, then as those of thousands of records."""
    if request.param == "in columns":
        monkeypatch.setattr(classify, "SMALL_BATCH_MAX", 0)


@pytest.fixture
def houston() -> Store:
    """Events of a store."""
    return Store(channel_id="houston", legal_entity="usrt", rng=random.Random(1))


def write(scene: Scene, *records: Operation) -> None:
    """Write records and wait for the broker's acknowledgements."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    for record in records:
        writer.write(record)
    writer.flush()


def dead_letters(scene: Scene, topic: str = "async-customers") -> list[Record]:
    """All dead letters of a topic."""
    return list(read_topic(scene.bootstrap_servers, scene.prefix, f"{topic}.dlq"))


def reasons(letters: Sequence[Record]) -> list[str]:
    """Why these records are dead letters, sorted."""
    return sorted(headers_of(letter)["x-dlq-reason"] for letter in letters)


def wait_for_dead_letters(scene: Scene, count: int, topic: str = "async-customers") -> list[Record]:
    """Wait for so many dead letters."""
    wait_for(lambda: len(dead_letters(scene, topic)) >= count, f"{count} dead letters of {topic}")
    return dead_letters(scene, topic)


def replied(scene: Scene) -> set[str]:
    """The ids of the events that were answered."""
    records = read_topic(scene.bootstrap_servers, scene.prefix, "channel-replies")
    return {decode("Reply", record.value or b"")["event_id"] for record in records}


def forgeries(houston: Store, keys: Keys, own: Signature, other: Signature) -> list[Operation]:
    """Records that name houston, headquarters or a store without a key, none of them written by it."""
    unsigned = record_of(houston.create())
    reframed = own.sign(record_of(houston.create()))
    another = own.sign(record_of(houston.create()))
    wrong_topic = record_of(houston.create())
    wrong_key = record_of(houston.create())
    unknown_key = replace(own, kid="0123456789abcdef").sign(record_of(houston.create()))
    touch = Store(channel_id="headquarters", legal_entity="usrt", rng=random.Random(2)).touch(houston.guid())
    stranger = Store(channel_id="munich", legal_entity="demf", rng=random.Random(3))
    return [
        unsigned,
        # Signed by another store.
        other.sign(record_of(houston.create())),
        # The headers of a genuine record.
        replace(record_of(houston.create()), headers=another.headers),
        replace(
            wrong_topic, headers=own.headers("retail-transactions", wrong_topic.key or b"", wrong_topic.value or b"")
        ),
        replace(wrong_key, headers=own.headers("async-customers", b"houston", wrong_key.value or b"")),
        unknown_key,
        # The same bytes behind the fingerprint of another schema.
        replace(reframed, value=contract("Reply").header + (reframed.value or b"")[len(contract("Reply").header) :]),
        replace(record_of(houston.create()), headers=(("kid", own.kid.encode()), ("mac", b""))),
        own.sign(record_of(touch)),
        record_of(touch),
        record_of(stranger.create()),
    ]


@pytest.mark.usefixtures("in_columns")
def test_only_records_that_their_channel_has_signed_are_accepted(
    new_scene: Callable[[str], Scene], houston: Store
) -> None:
    """All others are dead letters without an answer, and change nothing. With `require`."""
    # given
    scene = new_scene("require")
    keys = Keys(url=scene.url)
    own, other = keys.join("houston"), keys.join("dallas")
    forged = forgeries(houston, keys, own, other)
    genuine = [houston.create() for _ in range(3)]
    # when
    write(scene, *forged, *(own.sign(record_of(event)) for event in genuine))
    with scene.headquarters():
        answers = scene.replies(*genuine)
        letters = wait_for_dead_letters(scene, len(forged))
    # then
    assert [answer["outcome"] for answer in answers] == ["SYNCHRONIZED"] * 3
    assert reasons(letters) == ["not_authentic"] * len(forged)
    assert {(letter.key, letter.value) for letter in letters} == {(record.key, record.value) for record in forged}
    assert scene.tables().customers.keys() == {event["customer_id"] for event in genuine}
    assert replied(scene) == {event["event_id"] for event in genuine}
    # What recover passes over.
    refused = refused_records(scene.settings, ASYNC_CUSTOMERS_DLQ, lambda *_: None)
    assert refused == {(record.partition, record.offset) for record in forged}


def test_channel_that_had_a_key_must_sign_and_others_are_believed_with_a_warning(
    new_scene: Callable[[str], Scene], houston: Store
) -> None:
    """With `warn`: also after its key was revoked. A store that never had a key goes on as before."""
    # given
    scene = new_scene("warn")
    keys = Keys(url=scene.url)
    own = keys.join("houston")
    keys.revoke("houston")
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(3))
    refused = [houston.create(), houston.create()]
    believed = [munich.create() for _ in range(3)]
    # when
    write(scene, record_of(refused[0]), own.sign(record_of(refused[1])), *map(record_of, believed))
    with scene.headquarters():
        answers = scene.replies(*believed)
        letters = wait_for_dead_letters(scene, 2)
    # then
    assert {answer["outcome"] for answer in answers} == {"SYNCHRONIZED"}
    assert reasons(letters) == ["not_authentic"] * 2
    assert scene.tables().customers.keys() == {event["customer_id"] for event in believed}


def test_nothing_is_checked_with_off(new_scene: Callable[[str], Scene], houston: Store) -> None:
    """Records of a store with a key are accepted unsigned."""
    # given
    scene = new_scene("off")
    Keys(url=scene.url).join("houston")
    event = houston.create()
    # when
    write(scene, record_of(event))
    with scene.headquarters():
        (answer,) = scene.replies(event)
    # then
    assert answer["outcome"] == "SYNCHRONIZED"


@pytest.mark.usefixtures("in_columns")
def test_key_that_is_revoked_between_check_and_sql_transaction_is_refused(
    new_scene: Callable[[str], Scene], houston: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was checked with other keys than those of the database is checked again."""
    # given
    scene = new_scene("require")
    keys = Keys(url=scene.url)
    own, other = keys.join("houston"), keys.join("dallas")
    dallas = Store(channel_id="dallas", legal_entity="usrt", rng=random.Random(4))
    refused, accepted = houston.create(), dallas.create()
    revoked: list[str] = []

    def revoke(point: str) -> None:
        if point == "headquarters.while_judging" and not revoked:
            revoked.append(point)
            keys.revoke("houston")

    monkeypatch.setattr(customers_worker, "failpoint", revoke)
    # when
    write(scene, own.sign(record_of(refused)), other.sign(record_of(accepted)))
    with scene.headquarters():
        (answer,) = scene.replies(accepted)
        letters = wait_for_dead_letters(scene, 1)
    # then
    assert answer["outcome"] == "SYNCHRONIZED"
    assert reasons(letters) == ["not_authentic"]
    assert scene.tables().customers.keys() == {accepted["customer_id"]}
    assert replied(scene) == {accepted["event_id"]}


def test_key_that_is_added_between_check_and_sql_transaction_counts(
    new_scene: Callable[[str], Scene], houston: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may send with its new key as soon as headquarters has it."""
    # given
    scene = new_scene("require")
    keys = Keys(url=scene.url)
    own = keys.join("houston")
    joining = keys.prepare()
    event = houston.create()
    joined: list[str] = []

    def join(point: str) -> None:
        if point == "headquarters.while_judging" and not joined:
            joined.append(point)
            keys.add("houston", joining)

    monkeypatch.setattr(customers_worker, "failpoint", join)
    # when
    write(scene, own.sign(record_of(houston.create())), keys.signature(joining).sign(record_of(event)))
    with scene.headquarters():
        (answer,) = scene.replies(event)
        letters = wait_for_dead_letters(scene, 1)
    # then
    assert answer["outcome"] == "SYNCHRONIZED"
    assert reasons(letters) == ["not_authentic"]


def test_record_that_was_stored_before_its_key_was_revoked_keeps_its_outputs(
    new_scene: Callable[[str], Scene], houston: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has it, but a failure before the Kafka transaction: it is read again, and answered."""
    # given
    scene = new_scene("require")
    keys = Keys(url=scene.url)
    own = keys.join("houston")
    event = houston.create()
    failed: list[str] = []

    def fail_once(point: str) -> None:
        if point == "headquarters.after_sql_commit" and not failed:
            failed.append(point)
            keys.revoke("houston")
            raise TransactionFailed("a test")

    monkeypatch.setattr(customers_worker, "failpoint", fail_once)
    # when
    write(scene, own.sign(record_of(event)))
    with scene.headquarters():
        (answer,) = scene.replies(event)
        late = houston.create()
        write(scene, own.sign(record_of(late)))
        letters = wait_for_dead_letters(scene, 1)
    # then
    assert answer["outcome"] == "SYNCHRONIZED"
    assert [letter.key for letter in letters] == [late["customer_id"].encode()]
    snapshots = read_topic(scene.bootstrap_servers, scene.prefix, "customers")
    assert [snapshot.key for snapshot in snapshots] == [event["customer_id"].encode()]


def test_headquarters_signs_its_own_touches(new_scene: Callable[[str], Scene], houston: Store) -> None:
    """They are accepted with `require`, and have the snapshot sent again."""
    # given
    scene = new_scene("require")
    own = Keys(url=scene.url).join("houston")
    event = houston.create()
    write(scene, own.sign(record_of(event)))
    with scene.headquarters():
        scene.replies(event)
        # when
        engine = open_database(scene.url)
        touch = touch_of(event["customer_id"], houston.guid())
        send_own_events(scene.settings, engine, [touch], publish_schemas(scene.settings)["CustomerEvent"])
        engine.dispose()
        # then
        wait_for(lambda: len(read_topic(scene.bootstrap_servers, scene.prefix, "customers")) == 2, "the snapshot again")
    assert dead_letters(scene) == []


def sale_forgeries(own: Signature, other: Signature, till: Till, houston: Store) -> list[Operation]:
    """Orders that name houston, and were not written by it, or whose customer event was not."""
    without_code = own.sign(record_of_sale(till.order(houston.create())))
    event = record_of(houston.create())
    order = own.sign(record_of_sale(till.order(houston.create())))
    code_of_another = own.mac("async-customers", event.key or b"", event.value or b"")
    return [
        record_of_sale(till.order()),
        other.sign(record_of_sale(till.sale())),
        other.sign(record_of_sale(till.end_of_day([]))),
        without_code,
        replace(order, headers=(*order.headers, ("customer-event-mac", code_of_another))),
    ]


def signed_sale(own: Signature, sale: dict[str, object]) -> Operation:
    """An order or sale, signed as a store does it, with its customer event."""
    record = own.sign(record_of_sale(sale))
    key, event = str(sale["customer_id"]).encode(), sale["customer_event"]
    assert isinstance(event, bytes)
    return replace(record, headers=(*record.headers, ("customer-event-mac", own.mac("async-customers", key, event))))


def test_orders_and_the_customer_events_inside_are_believed_only_if_signed(
    new_scene: Callable[[str], Scene], houston: Store
) -> None:
    """A signed event inside an order is forwarded with the store's own signature, which the customers worker checks."""
    # given
    scene = new_scene("require")
    keys = Keys(url=scene.url)
    own, other = keys.join("houston"), keys.join("dallas")
    till = Till(channel_id="houston")
    forged = sale_forgeries(own, other, till, houston)
    event = houston.create()
    order, plain = till.order(event), till.sale()
    # when
    write(scene, *forged, signed_sale(own, order), own.sign(record_of_sale(plain)))
    with scene.headquarters(), scene.transactions():
        wait_for(lambda: status(scene, order).get("status") == "synchronized", "the order to be synchronized")
        letters = wait_for_dead_letters(scene, len(forged), "retail-transactions")
    # then
    assert reasons(letters) == ["not_authentic"] * len(forged)
    assert dead_letters(scene) == []
    stored = scene.query("SELECT transaction_id::text FROM retail_transactions ORDER BY 1")
    assert [row["transaction_id"] for row in stored] == sorted([order["transaction_id"], plain["transaction_id"]])
    assert scene.tables().customers.keys() == {event["customer_id"]}
    (forwarded,) = read_topic(scene.bootstrap_servers, scene.prefix, "async-customers")
    assert dict(forwarded.headers)["kid"] == own.kid.encode()
    with scene.follow("transaction-replies", "TransactionReply") as follower:
        assert {reply["transaction_id"] for _, reply in follower.more() if reply is not None} <= {
            order["transaction_id"],
            plain["transaction_id"],
        }


def test_order_stored_before_its_key_was_revoked_keeps_its_customer(
    new_scene: Callable[[str], Scene], houston: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure before the Kafka transaction does not lose the customer event inside. Later orders are refused."""
    # given
    scene = new_scene("require")
    keys = Keys(url=scene.url)
    own = keys.join("houston")
    till = Till(channel_id="houston")
    event = houston.create()
    order, late = till.order(event), till.order(houston.create())
    failed: list[str] = []

    def fail_once(point: str) -> None:
        if point == "transactions.after_sql_commit" and not failed:
            failed.append(point)
            keys.revoke("houston")
            raise TransactionFailed("a test")

    monkeypatch.setattr(transactions_worker, "failpoint", fail_once)
    # when
    write(scene, signed_sale(own, order))
    with scene.transactions():
        wait_for(
            lambda: len(read_topic(scene.bootstrap_servers, scene.prefix, "async-customers")) == 1, "the customer event"
        )
        write(scene, signed_sale(own, late))
        letters = wait_for_dead_letters(scene, 1, "retail-transactions")
    # then
    assert reasons(letters) == ["not_authentic"]
    assert [letter.value for letter in letters] == [record_of_sale(late).value]


def test_store_that_has_joined_works_as_before_and_with_another_key(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """With `require`: its customer gets a number, its order becomes a sales order, also after its key was replaced
    while it was cut off.
    """
    # given
    flow = set_flow(tmp_path, bootstrap_servers, prefix, new_database, "sqlite")
    scene, keys = flow.scene, Keys(url=flow.scene.url)
    scene.toml.write_text(f'authentication = "require"\n{scene.toml.read_text()}')
    with flow.opened() as channel, scene.headquarters(), scene.transactions():
        join_store(channel, keys)
        # when
        with flow.running(*PARTS):
            first = create_customer(channel, last_name="Lovelace")
            wait_for(lambda: show_customer(channel, first.customer_id).account_number is not None, "a number")
        second = create_customer(channel, last_name="Hopper")
        order = record_order(
            channel, customer_id=second.customer_id, lines=[Item(sku="TEA", quantity=Decimal(1), price=Decimal(3))]
        )
        join_store(channel, keys)
        with flow.running(*PARTS):
            # then
            wait_for(lambda: show_transaction(channel, order.transaction_id).sales_order is not None, "the sales order")
            wait_for(lambda: show_customer(channel, second.customer_id).account_number is not None, "its number")
    assert dead_letters(scene) == dead_letters(scene, "retail-transactions") == []
    assert len(scene.tables().customers) == 2


def join_store(channel: OpenChannel, keys: Keys) -> None:
    """Give a store a new key, here and at headquarters."""
    pair = keys.prepare()
    keys.add(channel.name, pair)
    with channel.engine.begin() as connection:
        write_identity(connection, pair, keys.public_key(), datetime.now(UTC))


DEAD_LETTERS_IN_A_ROW_MAX = 5


def suspensions(scene: Scene) -> dict[str, str]:
    """The suspended channels, with the reason."""
    rows = scene.query("SELECT channel_id, suspended_reason FROM channels WHERE suspended_at IS NOT NULL")
    return {row["channel_id"]: row["suspended_reason"] for row in rows}


def test_rubbish_on_retail_transactions_suspends_its_channel_and_stops_nobody(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """Also the good record of the same batch is refused: its store sends it again after it was resumed."""
    # given
    scene = scene_with(
        tmp_path,
        bootstrap_servers,
        prefix,
        new_database("headquarters"),
        "require",
        dead_letters_in_a_row_max=DEAD_LETTERS_IN_A_ROW_MAX,
    )
    keys = Keys(url=scene.url)
    own, other = keys.join("houston"), keys.join("dallas")
    bad = [
        own.sign(Operation(topic="retail-transactions", key=b"houston", value=f"rubbish {number}".encode()))
        for number in range(DEAD_LETTERS_IN_A_ROW_MAX + 1)
    ]
    refused, accepted = Till(channel_id="houston").sale(), Till(channel_id="dallas", rng=random.Random(9)).sale()
    # when
    write(scene, *bad, own.sign(record_of_sale(refused)), other.sign(record_of_sale(accepted)))
    with scene.transactions():
        wait_for(lambda: status(scene, accepted) != {}, "the sale of the other store")
        assert suspensions(scene) == {"houston": "6 records in a row were dead letters"}
        letters = wait_for_dead_letters(scene, len(bad) + 1, "retail-transactions")
        refused_status = status(scene, refused)
        engine = open_database(scene.url)
        assert resume(engine, "houston", By(source="a test"))
        engine.dispose()
        write(scene, own.sign(record_of_sale(refused)))
        wait_for(lambda: status(scene, refused) != {}, "the sale again")
    # then
    assert refused_status == {}
    (letter,) = [letter for letter in letters if letter.value == record_of_sale(refused).value]
    assert headers_of(letter)["x-dlq-reason"] == "suspended"


def test_recover_takes_back_no_event_that_was_refused(new_scene: Callable[[str], Scene], houston: Store) -> None:
    """The store sends the event again with its signature: it is applied, because it was never decided."""
    # given
    scene = new_scene("require")
    own = Keys(url=scene.url).join("houston")
    first, second = houston.create(), houston.create()
    write(scene, own.sign(record_of(first)))
    with scene.headquarters():
        scene.replies(first)
    backup = back_up(scene.url)
    edit = houston.edit(first["customer_id"], last_name="Hopper")
    write(scene, record_of(edit), own.sign(record_of(second)))
    with scene.headquarters():
        scene.replies(second)
        wait_for_dead_letters(scene, 1)
    restore(scene.url, backup)
    # when
    engine = open_database(scene.url)
    recover(scene.settings, engine)
    engine.dispose()
    write(scene, own.sign(record_of(edit)))
    with scene.headquarters():
        (answer,) = scene.replies(edit)
    # then
    assert (answer["outcome"], answer["version"]) == ("SYNCHRONIZED", 2)
    names = scene.query("SELECT last_name FROM customers WHERE customer_id = %s", first["customer_id"])
    assert names == [{"last_name": "Hopper"}]
