"""How headquarters handles events: real broker, real database, the real worker."""

import random
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from tests.faults.avro import decode
from tests.faults.checker import violations
from tests.faults.evidence import gather, read_topic
from tests.faults.traffic import Store, traffic
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene

REPLIES: Final = "channel-replies"


@pytest.fixture
def dallas() -> Store:
    """Another store of the same company, seeded."""
    return Store(channel_id="dallas", legal_entity="usrt", rng=random.Random(2))


def snapshots_of(scene: Scene, customer_id: str) -> list[bytes | None]:
    """Every record of one customer on `customers`, oldest first."""
    records = read_topic(scene.bootstrap_servers, scene.prefix, "customers")
    return [record.value for record in records if record.key == customer_id.encode()]


@pytest.mark.parametrize("seed", [1, 2])
def test_random_traffic_matches_the_model(scene: Scene, seed: int) -> None:
    """Creates, edits, repeats, rejections, supersedes, touches and erasures have the results of the model."""
    # given
    rng = random.Random(seed)
    stores = [Store(channel_id=name, legal_entity=entity, rng=rng) for name, entity in LEGAL_ENTITY_BY_CHANNEL.items()]
    events = traffic(rng, stores, 400)

    # when
    with scene.headquarters():
        for start in range(0, len(events), 100):
            scene.send(*events[start : start + 100])
        scene.replies(*events)

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_same_event_twice_gives_one_account_number(scene: Scene, houston: Store) -> None:
    """A repeated event, in the same batch or later, gets the same reply and is only counted."""
    # given
    event = houston.create()

    # when
    with scene.headquarters():
        (first,) = scene.ask(event)
        scene.send(event, event)
        (second,) = scene.ask(houston.touch(event["customer_id"]))

    # then
    assert (first["outcome"], first["account_number"], first["version"]) == ("SYNCHRONIZED", "C-00000001", 1)
    assert second["account_number"] == "C-00000001"
    (row,) = scene.query("SELECT * FROM synchronization_log WHERE event_id = %s", event["event_id"])
    assert (row["outcome"], row["repeats"], row["version"]) == ("synchronized", 2, 1)
    replies = read_topic(scene.bootstrap_servers, scene.prefix, REPLIES)
    values = [record.value for record in replies if dict(record.headers)["id"] == event["event_id"].encode()]
    assert len(values) == 3
    assert len(set(values)) == 1
    assert scene.tables().sequences["usrt"]["next"] == 2


def test_create_for_a_known_customer_is_an_edit(scene: Scene, houston: Store, dallas: Store) -> None:
    """A second create of the same GUID keeps the number and changes the paths that it names."""
    # given
    first = houston.create(last_name="Lee", title="Dr.")
    second = dallas.create(first["customer_id"], last_name="Li")
    second["changed"] = ["last_name"]

    # when
    with scene.headquarters():
        scene.ask(first)
        (reply,) = scene.ask(second)

    # then
    assert (reply["outcome"], reply["account_number"], reply["version"]) == ("SYNCHRONIZED", "C-00000001", 2)
    state = scene.tables().states[first["customer_id"]]
    assert (state["last_name"], state["title"], state["first_name"]) == ("Li", "Dr.", first["customer"]["first_name"])


def test_edits_of_different_fields_by_two_stores_are_both_applied(scene: Scene, houston: Store, dallas: Store) -> None:
    """Only the paths that an event changed are taken from it."""
    # given
    created = houston.create(last_name="Lee", title="")
    customer_id = created["customer_id"]
    dallas.adopt(houston, customer_id)
    by_houston = houston.edit(customer_id, last_name="Li")
    by_dallas = dallas.edit(customer_id, title="Dr.", affiliations=["vip"])

    # when
    with scene.headquarters():
        scene.ask(created)
        scene.ask(by_houston)
        (reply,) = scene.ask(by_dallas)

    # then
    state = scene.tables().states[customer_id]
    assert (state["last_name"], state["title"], state["affiliations"]) == ("Li", "Dr.", ["vip"])
    assert reply["version"] == 3
    audit = scene.query("SELECT path, old_value, new_value, channel_id FROM customer_audit ORDER BY audit_id")
    assert [tuple(row.values()) for row in audit] == [
        ("last_name", "Lee", "Li", "houston"),
        ("title", "", "Dr.", "dallas"),
        ("affiliations/staff", "staff", None, "dallas"),
        ("affiliations/vip", None, "vip", "dallas"),
    ]


def test_superseded_event_is_applied_with_the_newest(scene: Scene, houston: Store) -> None:
    """The newest event suffices: superseded events are applied with it, and change nothing when they arrive late."""
    # given
    created = houston.create(middle_name="")
    customer_id = created["customer_id"]
    lost = houston.edit(customer_id, middle_name="M")
    newest = houston.edit(customer_id, [lost], title="Dr.")

    # when
    with scene.headquarters():
        scene.ask(created)
        (first,), (superseded,) = scene.ask(newest), scene.replies(lost)
        (late,) = scene.ask(lost)
        scene.ask(houston.touch(customer_id))

    # then
    assert [(reply["outcome"], reply["version"]) for reply in (first, superseded, late)] == [
        ("SYNCHRONIZED", 2),
        ("SUPERSEDED", 2),
        ("SUPERSEDED", 2),
    ]
    state = scene.tables().states[customer_id]
    assert (state["middle_name"], state["title"]) == ("M", "Dr.")
    assert scene.tables().customers[customer_id]["version"] == 2


def test_correction_applies_the_rest_of_the_rejected_event(scene: Scene, houston: Store) -> None:
    """A rejected edit is superseded by its correction, which applies its other paths; the store gets both replies."""
    # given
    created = houston.create(title="")
    customer_id = created["customer_id"]
    wrong = houston.edit(customer_id, title="Dr.", addresses=[houston.address("XX")])
    right = houston.edit(customer_id, [wrong], addresses=[])

    # when
    with scene.headquarters():
        scene.ask(created)
        (rejected,) = scene.ask(wrong)
        scene.ask(right)
        (superseded,) = scene.replies(wrong)
        (again,) = scene.ask(wrong)

    # then
    assert rejected["outcome"] == "REJECTED"
    assert [reason["code"] for reason in rejected["reasons"]] == ["unknown_country"]
    assert superseded["outcome"] == again["outcome"] == "SUPERSEDED"
    assert superseded["reasons"] == again["reasons"] == []
    assert [reply["judgement"] for reply in (rejected, superseded, again)] == [1, 2, 2]
    logged = scene.tables().log[wrong["event_id"]]
    place = (logged["partition"], logged["offset"])
    assert {(reply["input_partition"], reply["input_offset"]) for reply in (rejected, superseded, again)} == {place}
    state = scene.tables().states[customer_id]
    assert (state["title"], state["addresses"]) == ("Dr.", {})


def test_repeat_replies_to_the_superseded_event_too(scene: Scene, houston: Store) -> None:
    """An event that superseded another replies for both when it is repeated after a crash."""
    # given
    created = houston.create()
    lost = houston.edit(created["customer_id"], middle_name="M")
    newest = houston.edit(created["customer_id"], [lost], title="Dr.")

    # when
    with scene.headquarters():
        scene.ask(created, newest)
        scene.send(newest)
        scene.ask(houston.touch(created["customer_id"]))

    # then
    replies = read_topic(scene.bootstrap_servers, scene.prefix, REPLIES)
    assert len([record for record in replies if dict(record.headers)["id"] == lost["event_id"].encode()]) == 2


def test_rejection_names_every_reason(scene: Scene, houston: Store) -> None:
    """The reply names every rule that the customer breaks; it gets no number and is not stored."""
    # given
    event = houston.create(first_name="", last_name="", currency="XXY", addresses=[houston.address("XX")])

    # when
    with scene.headquarters():
        (reply,) = scene.ask(event)

    # then
    assert reply["outcome"] == "REJECTED"
    assert (reply["account_number"], reply["version"]) == (None, None)
    assert {reason["code"] for reason in reply["reasons"]} == {"required", "unknown_currency", "unknown_country"}
    (row,) = scene.query("SELECT outcome, reasons FROM synchronization_log")
    assert (row["outcome"], row["reasons"]) == ("rejected", reply["reasons"])
    tables = scene.tables()
    assert not tables.customers
    assert tables.sequences["usrt"]["next"] == 1


def test_event_with_unknown_paths_is_rejected_with_each_path_named(scene: Scene, houston: Store) -> None:
    """Nothing of it is stored; the event that follows, and supersedes it, is synchronized."""
    # given
    created = houston.create(title="", middle_name="")
    customer_id = created["customer_id"]
    unknown = houston.edit(customer_id, title="Dr.")
    unknown["changed"] += ["shoe_size", "account_number", "addresses", "attributes/" + "x" * 90, "attributes/\x00"]
    following = houston.edit(customer_id, [unknown], middle_name="M")

    # when
    with scene.headquarters():
        scene.ask(created)
        (rejected,) = scene.ask(unknown)
        after_rejection = scene.tables()
        (synchronized,) = scene.ask(following)
        (superseded,) = scene.replies(unknown)

    # then
    assert (rejected["outcome"], rejected["version"]) == ("REJECTED", 1)
    assert [(reason["field"], reason["code"]) for reason in rejected["reasons"]] == [
        ("shoe_size", "unknown_path"),
        ("account_number", "unknown_path"),
        ("addresses", "unknown_path"),
        ("changed/#5", "unknown_path"),
        ("changed/#6", "unknown_path"),
    ]
    assert (after_rejection.customers[customer_id]["version"], after_rejection.states[customer_id]["title"]) == (1, "")
    assert after_rejection.log[unknown["event_id"]]["outcome"] == "rejected"
    assert (synchronized["outcome"], superseded["outcome"]) == ("SYNCHRONIZED", "SUPERSEDED")
    state = scene.tables().states[customer_id]
    assert (state["title"], state["middle_name"]) == ("Dr.", "M")


def test_create_with_an_unknown_path_is_rejected_among_simple_creates(scene: Scene, houston: Store) -> None:
    """A bulk create skips no check: this customer gets no number, the others do."""
    # given
    others = [houston.create() for _ in range(40)]
    unknown = houston.create(first_name="")
    unknown["changed"].append("shoe_size")

    # when
    scene.send(*others[:20], unknown, *others[20:])
    with scene.headquarters():
        (rejected,) = scene.replies(unknown)
        replies = scene.replies(*others)

    # then
    assert (rejected["outcome"], rejected["account_number"]) == ("REJECTED", None)
    assert [(reason["field"], reason["code"]) for reason in rejected["reasons"]] == [("shoe_size", "unknown_path")]
    assert {reply["outcome"] for reply in replies} == {"SYNCHRONIZED"}
    tables = scene.tables()
    assert tables.customers.keys() == {event["customer_id"] for event in others}
    assert tables.sequences["usrt"]["next"] == 41


def test_events_of_an_unknown_channel_or_entity_are_held_and_of_another_entity_rejected(
    scene: Scene, houston: Store
) -> None:
    """So are events of unknown customers, and events without a customer."""
    # given
    elsewhere = Store(channel_id="nowhere", legal_entity="usrt", rng=random.Random(3))
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(4))
    known = houston.create()
    munich.adopt(houston, known["customer_id"])
    by_operator = Store(channel_id="headquarters", legal_entity="usrt", rng=random.Random(5))
    events = [
        elsewhere.create(),
        houston.create(legal_entity="frrt"),
        houston.create(legal_entity="demf"),
        munich.create(known["customer_id"]),
        houston.touch(houston.guid()),
        houston.create() | {"customer": None},
        by_operator.create(),
    ]

    # when
    with scene.headquarters():
        scene.ask(known)
        replies = scene.ask(*events)

    # then
    assert [[reason["code"] for reason in reply["reasons"]] for reply in replies] == [
        ["unknown_channel"],
        ["unknown_legal_entity"],
        ["other_legal_entity"],
        ["other_legal_entity"],
        ["unknown_customer"],
        ["required"],
        [],
    ]
    assert [reply["outcome"] for reply in replies] == ["HELD"] * 2 + ["REJECTED"] * 4 + ["SYNCHRONIZED"]
    assert scene.tables().customers.keys() == {known["customer_id"], events[-1]["customer_id"]}


def test_event_with_the_id_of_another_customers_event_is_rejected(scene: Scene, houston: Store) -> None:
    """It is not a repeat, so the reply does not reveal the other customer's account number."""
    # given
    first, second = houston.create(), houston.create()
    second["event_id"] = first["event_id"]

    # when
    with scene.headquarters():
        scene.ask(first)
        scene.send(second)
        scene.ask(houston.touch(first["customer_id"]))

    # then
    records = read_topic(scene.bootstrap_servers, scene.prefix, REPLIES)
    replies = [decode("Reply", record.value or b"") for record in records]
    (rejected,) = [reply for reply in replies if reply["customer_id"] == second["customer_id"]]
    assert (rejected["outcome"], rejected["account_number"], rejected["judgement"]) == ("REJECTED", None, 1)
    (place,) = [
        (record.partition, record.offset)
        for record in read_topic(scene.bootstrap_servers, scene.prefix, "async-customers")
        if record.key == second["customer_id"].encode()
    ]
    assert (rejected["input_partition"], rejected["input_offset"]) == place
    assert [reason["code"] for reason in rejected["reasons"]] == ["duplicate"]
    assert scene.tables().customers.keys() == {first["customer_id"]}


def test_second_create_of_a_customer_by_another_legal_entity_is_rejected(scene: Scene, houston: Store) -> None:
    """Both creates are in one batch; the first is synchronized, and the worker continues."""
    # given
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(4))
    first = houston.create()
    second = munich.create(first["customer_id"])

    # when
    scene.send(first, second)
    with scene.headquarters():
        replies = scene.replies(first, second)

    # then
    assert [reply["outcome"] for reply in replies] == ["SYNCHRONIZED", "REJECTED"]
    assert replies[0]["account_number"] == "C-00000001"


def test_erased_customer_keeps_only_its_number(scene: Scene, houston: Store) -> None:
    """An erasure leaves a tombstone and the account number; later events are replied `erased`."""
    # given
    created = houston.create(title="Dr.")
    customer_id = created["customer_id"]
    edited = houston.edit(customer_id, title="Prof.")
    late = houston.edit(customer_id, title="Mx.")

    # when
    with scene.headquarters():
        scene.ask(created)
        scene.ask(edited)
        replies = [*scene.ask(houston.erase(customer_id)), *scene.ask(late), *scene.ask(houston.erase(customer_id))]

    # then
    assert [(reply["outcome"], reply["account_number"]) for reply in replies] == [("ERASED", "C-00000001")] * 3
    tables = scene.tables()
    row, state = tables.customers[customer_id], tables.states[customer_id]
    assert row["erased_at"] is not None
    assert (row["account_number"], row["version"]) == ("C-00000001", 3)
    assert {name: value for name, value in state.items() if value} == {
        "legal_entity": "usrt",
        "customer_type": "person",
        "receipt_preference": "none",
    }
    assert snapshots_of(scene, customer_id)[-1] is None
    assert scene.query("SELECT * FROM customer_audit") == []


def test_touch_sends_the_current_snapshot_again(scene: Scene, houston: Store) -> None:
    """A touch changes nothing and publishes the current snapshot or tombstone."""
    # given
    kept, erased = houston.create(), houston.create()

    # when
    with scene.headquarters():
        scene.ask(kept, erased)
        scene.ask(houston.erase(erased["customer_id"]))
        scene.ask(houston.touch(kept["customer_id"]), houston.touch(erased["customer_id"]))

    # then
    first, second = snapshots_of(scene, kept["customer_id"])
    assert first == second
    assert snapshots_of(scene, erased["customer_id"])[1:] == [None, None]


def test_operator_is_in_log_and_audit(scene: Scene, houston: Store) -> None:
    """Null for an event without one, and for a superseded event that never arrived."""
    # given
    created = houston.create(title="", middle_name="") | {"operator": "Ann"}
    customer_id = created["customer_id"]
    lost = houston.edit(customer_id, middle_name="M") | {"operator": "Bob"}
    edited = houston.edit(customer_id, [lost], title="Dr.") | {"operator": "Zoë"}
    unnamed = houston.edit(customer_id, title="Prof.")

    # when
    with scene.headquarters():
        for event in (created, edited, unnamed):
            scene.ask(event)

    # then
    log = {entry["event_id"]: entry["operator"] for entry in scene.query("SELECT * FROM synchronization_log")}
    assert [log[UUID(event["event_id"])] for event in (created, lost, edited, unnamed)] == ["Ann", None, "Zoë", None]
    audit = scene.query("SELECT path, operator FROM customer_audit ORDER BY audit_id")
    assert sorted((row["path"], row["operator"] or "") for row in audit[:2]) == [
        ("middle_name", "Zoë"),
        ("title", "Zoë"),
    ]
    assert [(row["path"], row["operator"]) for row in audit[2:]] == [("title", None)]


@pytest.mark.parametrize(("operator", "code"), [("x" * 65, "too_long"), ("a\x00b", "nul")])
@pytest.mark.parametrize("neighbours", [0, 40])
def test_event_with_an_invalid_operator_is_rejected(
    scene: Scene, houston: Store, operator: str, code: str, neighbours: int
) -> None:
    """Alone or among simple creates, which are synchronized; it is logged without the operator."""
    # given
    others = [houston.create() | {"operator": "李" * 64} for _ in range(neighbours)]
    invalid = houston.create() | {"operator": operator}

    # when
    scene.send(*others[:20], invalid, *others[20:])
    with scene.headquarters():
        (rejected,) = scene.replies(invalid)
        replies = scene.replies(*others)

    # then
    assert (rejected["outcome"], rejected["account_number"]) == ("REJECTED", None)
    assert [(reason["field"], reason["code"]) for reason in rejected["reasons"]] == [("operator", code)]
    assert {reply["outcome"] for reply in replies} <= {"SYNCHRONIZED"}
    log = scene.query("SELECT event_id, operator FROM synchronization_log")
    assert {str(entry["event_id"]): entry["operator"] for entry in log} == {
        invalid["event_id"]: None,
        **{event["event_id"]: "李" * 64 for event in others},
    }


def test_bulk_and_individual_creates_write_the_same_rows_and_bytes(scene: Scene, houston: Store) -> None:
    """A customer has the same rows and the same snapshot whether it is created in bulk or individually."""
    # given
    fields: dict[str, Any] = {
        "customer_type": "ORGANIZATION",
        "organization_name": 'Quotes "and" \\backslashes, ümlauts\t🙂',
        "receipt_preference": "EMAIL",
        "address_books": ["EU", "US"],
        "affiliations": ['"', "a/b"],
        "attributes": [
            {"name": "blue", "text": 'x,"integer":null'},
            {"name": "count", "integer": -(2**63)},
            {"name": "no", "boolean": False},
            {"name": "size", "decimal": Decimal("1.500000")},
        ],
    }
    simple = houston.create(**fields) | {"operator": 'Zoë "the cashier" 🙂'}
    simple["customer"]["primary_address"] = simple["customer"]["addresses"][0]["address_id"]
    simple["customer"]["primary_email"] = simple["customer"]["contacts"][0]["contact_id"]
    individual = houston.create() | {
        "customer": simple["customer"],
        "operator": simple["operator"],
        "based_on_version": 1,
    }
    # The events of a small batch are all individual.
    others = [houston.create() for _ in range(20)]

    # when
    scene.send(*others, simple, individual)
    with scene.headquarters():
        replies = scene.replies(simple, individual, *others)[:2]

    # then
    assert [reply["outcome"] for reply in replies] == ["SYNCHRONIZED"] * 2
    tables = scene.tables()
    assert tables.states[simple["customer_id"]] == tables.states[individual["customer_id"]]
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    ignored = {"customer_id", "account_number", "version", "updated_at", "address_id", "contact_id"}
    ignored |= {"event_id", "partition", "offset", "occurred_at", "received_at", "content_hash"}
    for table in ("customers", "customer_addresses", "customer_contacts", "synchronization_log"):
        where = "WHERE customer_id IN (%s, %s)"
        rows = scene.query(f"SELECT * FROM {table} {where}", simple["customer_id"], individual["customer_id"])  # noqa: S608  # names from here
        first, second = ({key: value for key, value in row.items() if key not in ignored} for row in rows)
        assert first == second
    texts = scene.query(
        "SELECT DISTINCT address_books::text, affiliations::text, attributes::text FROM customers "
        "WHERE organization_name <> ''"
    )
    assert len(texts) == 1
