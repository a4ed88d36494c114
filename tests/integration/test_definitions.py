"""Attributes and customer groups that a legal entity defines: checked in the store and at headquarters."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tenten.producers import (
    Item,
    create_customer,
    edit_customer,
    import_customers,
    open_channel,
    record_sale,
    show_transaction,
)
from tenten.registry.apply import apply_registry, compare_registry
from tenten.registry.tables import read_registry
from tenten.registry.toml import registry_toml
from tenten.registry.values import Registry, registry_of
from tenten.runtime.errors import CustomerRejected, SettingsError, TransactionRejected
from tenten.runtime.settings import AttributeSettings
from tenten.runtime.settings.registry_file import read_registry_file
from tenten.schemas.messages import Attribute
from tests.conftest import NewDatabase
from tests.faults.traffic import Store as SeededStore
from tests.opened_databases import opened
from tests.producer_scene import HOUSTON, Store
from tests.sales import Till, Transaction, replies_with_statuses, reply_with_status, send, status
from tests.scenes import Scene
from tests.settings_file import USRT
from tests.waiting import wait_for

SIZE = '[legal_entities.usrt.attributes.size]\nkind = "integer"\nminimum = 30\nmaximum = 50\nlabel = "Shoe size"\n'
VIP = '[legal_entities.usrt.attributes.vip]\nkind = "boolean"\nmandatory = true\ndefault = false\n'
COLOR = '[legal_entities.usrt.attributes.color]\nkind = "text"\nchoices = ["red", "blue"]\n'
DEFINED = USRT + 'customer_groups = ["20", "10"]\n' + SIZE + VIP + COLOR


@pytest.fixture
def wanted(tmp_path: Path) -> Callable[[str], Registry]:
    """Returns the registry of a file with this text."""

    def read(document: str) -> Registry:
        file = tmp_path / "stores.toml"
        file.write_text(document)
        found = read_registry_file(file)
        return registry_of(found.legal_entities, found.channels)

    return read


def test_definitions_are_applied_shown_and_compared(
    new_database: NewDatabase, wanted: Callable[[str], Registry]
) -> None:
    """Each setting of an attribute by itself; what is shown is a file that changes nothing."""
    with opened(new_database("headquarters")) as engine:
        # given
        apply_registry(engine, wanted(USRT), source="settings apply")
        # when
        added = apply_registry(engine, wanted(DEFINED), source="settings apply")
        changed = apply_registry(engine, wanted(DEFINED.replace("50", "52.5")), source="settings apply")
        # then
        names = added.settings()["changed"]
        assert "legal_entities.usrt.attributes.size.kind" in names
        assert "legal_entities.usrt.customer_groups" in names
        assert changed.settings()["changed"] == ["legal_entities.usrt.attributes.size.maximum"]
        with engine.begin() as connection:
            shown = registry_toml(read_registry(connection))
        assert compare_registry(engine, wanted(shown)).none
        # when: an attribute is no longer defined
        removed = apply_registry(engine, wanted(DEFINED.replace(SIZE, "")), source="settings apply")
        # then
        assert {name.rsplit(".", 1)[0] for name in removed.settings()["changed"]} == {
            "legal_entities.usrt.attributes.size"
        }


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [
        ('[legal_entities.usrt.attributes."shoe size"]\nkind = "text"\n', "use letters, digits, - and _"),
        ('[legal_entities.usrt.attributes.size]\nkind = "number"\n', "attributes.size.kind: input should be"),
        ('[legal_entities.usrt.attributes.size]\nkind = "integer"\nchoices = ["1"]\n', "choices are for a text only"),
        ('[legal_entities.usrt.attributes.size]\nkind = "text"\nmaximum = 5\n', "are for numbers only"),
        ('[legal_entities.usrt.attributes.size]\nkind = "integer"\nmaximum = "x"\n', "maximum: write a number"),
        ('[legal_entities.usrt.attributes.size]\nkind = "integer"\ndefault = "x"\n', "default: must be a whole number"),
    ],
)
def test_definition_that_contradicts_itself_is_refused(
    wanted: Callable[[str], Registry], attribute: str, problem: str
) -> None:
    """With the place in the file."""
    with pytest.raises(SettingsError, match=problem):
        wanted(USRT + attribute)


def test_store_checks_what_is_entered_and_converts_texts(store: Store, tmp_path: Path) -> None:
    """New customers by all definitions, edits by those of what they change; also imports."""
    # given: a customer from before
    old = create_customer(store.channel, last_name="Old", attributes={"nonsense": "abc"}, customer_group="99")
    attributes = {
        "size": AttributeSettings(kind="integer", minimum="30", maximum="50"),
        "vip": AttributeSettings(kind="boolean", mandatory=True, default="false"),
    }
    usrt = store.settings.legal_entities["usrt"].model_copy(
        update={"attributes": attributes, "customer_groups": ("10", "20")}
    )
    with open_channel(store.settings.model_copy(update={"legal_entities": {"usrt": usrt}}), HOUSTON) as till:
        # when, then
        ada = create_customer(till, last_name="Ada", attributes={"size": "38"})
        assert ada.state.attributes == (Attribute(name="size", integer=38), Attribute(name="vip", boolean=False))
        with pytest.raises(CustomerRejected) as refused:
            create_customer(
                till,
                last_name="Bea",
                customer_group="99",
                attributes={"size": 60, "vip": None, "nonsense": Decimal("1.5")},
            )
        assert [(reason.field, reason.code) for reason in refused.value.reasons] == [
            ("customer_group", "unknown_choice"),
            ("attributes/nonsense", "unknown_attribute"),
            ("attributes/size", "out_of_range"),
            ("attributes/vip", "required"),
        ]
        edited = edit_customer(till, old.customer_id, last_name="Older")
        assert edited.state.attributes == (Attribute(name="nonsense", text="abc"),)
        with pytest.raises(CustomerRejected, match="Must be a whole number"):
            edit_customer(till, old.customer_id, attributes={"size": "large"})
        # when, then
        file = tmp_path / "people.csv"
        file.write_text("last_name,size\nCal,40\nDee,400\n")
        result = import_customers(till, file, mapping={"size": "attributes/size"})
        assert (result.created, [line.line for line in result.rejected]) == (1, [3])


def test_headquarters_checks_what_stores_send_and_uses_a_change_at_once(scene: Scene, houston: SeededStore) -> None:
    """One by one and in a large batch; an edit only where it changes something; another legal entity not at all."""
    # given
    munich = SeededStore(channel_id="munich", legal_entity="demf", rng=houston.rng)
    old = houston.create(attributes=[_attribute("nonsense", text="abc")])
    with scene.headquarters():
        assert scene.ask(old)[0]["outcome"] == "SYNCHRONIZED"
        # when
        document = scene.toml.read_text()
        defined = 'customer_groups = ["10"]\n' + SIZE + VIP
        scene.toml.write_text(document.replace(USRT, USRT + defined))
        assert scene.toml.read_text() != document
        scene.apply_settings()
        wait_for(lambda: _is_rejected(scene, houston.create()), "the definitions")
        # then: one by one
        right = houston.create(attributes=[_attribute("vip", boolean=True), _attribute("size", integer=38)])
        wrong = houston.create(attributes=[_attribute("vip", boolean=True), _attribute("size", integer=60)])
        edit = houston.edit(old["customer_id"], last_name="Older")
        group = houston.edit(old["customer_id"], customer_group="99")
        foreign = munich.create(attributes=[_attribute("nonsense", text="abc")])
        replies = [scene.ask(event)[0] for event in (right, wrong, edit, group, foreign)]
        assert [reply["outcome"] for reply in replies] == [
            "SYNCHRONIZED",
            "REJECTED",
            "SYNCHRONIZED",
            "REJECTED",
            "SYNCHRONIZED",
        ]
        assert [(reason["field"], reason["code"]) for reason in replies[1]["reasons"]] == [
            ("attributes/size", "out_of_range")
        ]
        # then: together
        events = [
            houston.create(attributes=[_attribute("vip", boolean=True)] if number % 2 else []) for number in range(400)
        ]
        outcomes = [reply["outcome"] for reply in scene.ask(*events)]
        assert outcomes == ["REJECTED", "SYNCHRONIZED"] * 200


def test_headquarters_checks_attributes_of_sales(scene: Scene) -> None:
    """One by one and in a large batch: a store may not know the newest definitions yet. Orders have others."""
    # given
    till = Till(channel_id="houston")
    gift = '[legal_entities.usrt.attributes.gift]\nkind = "boolean"\nentities = ["sale"]\nmandatory = true\n'
    with scene.transactions():
        earlier = till.sale()
        send(scene, earlier)
        reply_with_status(scene, earlier, "synchronized")
        # when
        scene.toml.write_text(scene.toml.read_text().replace(USRT, USRT + gift))
        scene.apply_settings()
        wait_for(lambda: "rejected" in _outcome(scene, till.sale()), "the definitions")
        right, order = till.sale(attributes=[_attribute("gift", boolean=True)]), till.order()
        many = [till.sale(attributes=[_attribute("gift", boolean=True)] if number % 2 else []) for number in range(200)]
        send(scene, right, order, *many)
        # then
        reply_with_status(scene, right, "synchronized")
        reply_with_status(scene, order, "synchronized")
        in_turn = [(sale, "synchronized" if number % 2 else "rejected") for number, sale in enumerate(many)]
        replies_with_statuses(scene, in_turn)
        assert status(scene, right)["content"]["attributes"] == [_attribute("gift", boolean=True)]
        assert status(scene, many[0])["reasons"][0]["code"] == "required"


def test_store_checks_attributes_of_sales(store: Store) -> None:
    """Texts become the kind that is defined; customers may still have any attribute."""
    # given
    usrt = store.settings.legal_entities["usrt"]
    defined = usrt.model_copy(
        update={"attributes": {"gift": AttributeSettings(kind="boolean", entities=("sale",), mandatory=True)}}
    )
    tea = [Item(sku="TEA", quantity=Decimal(1), price=Decimal(4))]
    with open_channel(store.settings.model_copy(update={"legal_entities": {"usrt": defined}}), HOUSTON) as channel:
        # when, then
        with pytest.raises(TransactionRejected) as refused:
            record_sale(channel, lines=tea)
        assert [(reason.field, reason.code) for reason in refused.value.reasons] == [("attributes/gift", "required")]
        recorded = record_sale(channel, lines=tea, attributes={"gift": "yes"})
        assert show_transaction(channel, recorded.transaction_id).transaction.attributes == (
            Attribute(name="gift", boolean=True),
        )
        assert create_customer(channel, last_name="Ada", attributes={"anything": "goes"}).state.attributes


def _outcome(scene: Scene, sale: Transaction) -> str:
    send(scene, sale)
    wait_for(lambda: status(scene, sale) != {}, "the sale")
    return str(status(scene, sale)["status"])


def _attribute(name: str, **value: Any) -> dict[str, Any]:
    return {"name": name, "text": None, "integer": None, "decimal": None, "boolean": None, **value}


def _is_rejected(scene: Scene, event: dict[str, Any]) -> bool:
    return bool(scene.ask(event)[0]["outcome"] == "REJECTED")
