"""Search in a channel, on PostgreSQL and SQLite."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tenten.producers import Item, create_customer, record_order, search_customers
from tenten.producers.till.transaction_views import transactions_with_reference
from tests.producer_scene import Store, set_store


@pytest.fixture
def store(channel_url: str, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases, with a handful of customers."""
    with set_store(tmp_path, channel_url) as made:
        create_customer(made.channel, first_name="Ada", last_name="Lovelace", email="Ada@example.com")
        create_customer(made.channel, first_name="Ada", middle_name="Maria", last_name="Byron", phone="713 555 0123")
        create_customer(made.channel, first_name="Anna", last_name="Adams")
        create_customer(made.channel, first_name="Émile", last_name="Öztürk")
        create_customer(made.channel, organization_name="100% Pure_Wool")
        yield made


def names(store: Store, text: str, limit: int = 50) -> list[str]:
    """The names of the matches, best first."""
    return [view.display_name for view in search_customers(store.channel, text, limit)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada lovelace", ["Ada Lovelace"]),
        ("LOVELACE, Ada", ["Ada Lovelace"]),
        ("love ad", ["Ada Lovelace"]),
        ("byron ada", ["Ada Maria Byron"]),
        ("ada", ["Ada Lovelace", "Ada Maria Byron", "Anna Adams"]),
        ("ovelace", []),
        ("ada babbage", []),
        ("ÖZTÜRK émi", ["Émile Öztürk"]),
        ("E\u0301mile", ["Émile Öztürk"]),
        ("100%", ["100% Pure_Wool"]),
        ("pure_", ["100% Pure_Wool"]),
        ("pure%", []),
        ("_", []),
        ("", []),
        (" \x00 ", []),
    ],
)
def test_names_are_found_by_word_prefixes(store: Store, text: str, expected: list[str]) -> None:
    """In any order and case; characters of SQL patterns are literal."""
    assert names(store, text) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Gonçalves", "goncalves"),
        ("Gonçalves", "GONÇALVES"),
        ("Köhler", "kohler"),
        ("Köhler", "Ko\u0308h"),
        ("Kohler", "köhler"),
        ("Große Straße", "strasse"),
        ("Große Straße", "straße grosse"),
        ("Strasse", "straße"),
        ("Sørensen", "sorensen"),
        ("Sorensen", "Sørensen"),
        ("Łódź", "lodz"),
        ("Lodz", "łódź"),
    ],
)
def test_accents_and_special_letters_are_ignored(store: Store, name: str, text: str) -> None:
    """In the name and in the text alike."""
    # when
    create_customer(store.channel, organization_name=name)
    # then
    assert names(store, text) == [name]


@pytest.mark.parametrize("name", ["Rita Mueller-O'Connor", "Rita Mueller-O\u2019Connor"])
def test_apostrophes_and_hyphens_of_names_do_not_matter(store: Store, name: str) -> None:
    """A phone types other apostrophes, and many people none."""
    # when
    create_customer(store.channel, organization_name=name)
    # then
    texts = ("o'connor", "O\u2019Connor", "oconnor", "mueller-o'c", "mueller oconn", "connor", "'", "-")
    assert [names(store, text) for text in texts] == [[name]] * 5 + [[]] * 3


@pytest.mark.parametrize(
    "text", ["+17135550123", "(713) 555-0123", "713.555.0123", "1 713 555 0123", "(713) 555-01", "+1 713 5", "71355"]
)
def test_phone_number_is_found_in_any_format(store: Store, text: str) -> None:
    """The clerk types the number as the customer gives it; its beginning is enough."""
    assert names(store, text) == ["Ada Maria Byron"]


def test_email_address_is_found(store: Store) -> None:
    """With its domain in any case; its beginning is enough."""
    for text in (" Ada@EXAMPLE.com ", "Ada@exam", "Ada@"):
        assert names(store, text) == ["Ada Lovelace"]
    assert names(store, "da@exam") == []


def test_account_number_is_found_first(store: Store) -> None:
    """In any case, before a customer whose name equals it, and without its leading zeros."""
    # given
    [ada] = search_customers(store.channel, "ada lovelace")
    store.synchronize(ada.customer_id, "C-00000042")
    create_customer(store.channel, organization_name="c-00000042 Ltd")
    # then
    assert names(store, "c-00000042") == ["Ada Lovelace", "c-00000042 Ltd"]
    assert [names(store, text)[:1] for text in ("C-42", "c-042", "42", "D-42")] == [["Ada Lovelace"]] * 3 + [[]]
    assert [view.account_number for view in search_customers(store.channel, "C-00000042", 1)] == ["C-00000042"]


def test_search_respects_limit_and_ranks_results(store: Store) -> None:
    """The full name first, then names that begin with the text, then others by name."""
    # given
    for number in range(20):
        create_customer(store.channel, first_name=f"Kim{number:02d}", last_name="Park")
    create_customer(store.channel, first_name="Park", last_name="Kim")
    create_customer(store.channel, first_name="Park")
    # then
    assert names(store, "park", limit=4) == ["Park", "Park Kim", "Kim00 Park", "Kim01 Park"]
    assert len(names(store, "park", limit=1_000_000)) == 22
    assert names(store, "park", limit=0) == []


def test_a_reference_finds_its_customer_before_and_after_the_number(store: Store) -> None:
    """However it is typed."""
    # given
    kim = create_customer(
        store.channel, customer_id="0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f", first_name="Kim", last_name="Park"
    )
    # when
    pending = [names(store, text) for text in ("2T-FJF", " 2tfjf", "2t fjf", "3T-FJF")]
    store.synchronize(kim.customer_id, "C-00000042")
    # then
    assert kim.reference == "2T-FJF"
    assert pending == [["Kim Park"]] * 3 + [[]]
    assert names(store, "2t-fjf") == ["Kim Park"]


def test_a_reference_finds_its_order(store: Store) -> None:
    """Among the orders and sales of the store."""
    # given
    tea = Item(sku="TEA", quantity=Decimal(1), price=Decimal(3))
    order, other = (record_order(store.channel, lines=[tea]) for _ in range(2))
    # when
    found = transactions_with_reference(store.channel, order.reference)
    # then
    assert order.reference != other.reference
    assert [view.transaction_id for view in found] == [order.transaction_id]
