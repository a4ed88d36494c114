"""Which customers a channel accepts: one by one and in columns alike."""

from itertools import product

import polars as pl
import pytest

from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.snapshot_columns import accepted_by

BOOKS = ((), ("US",), ("EU",), ("EU", "US"), ("EU", "TX"))
CUSTOMERS = [(entity, books) for entity, books in product(("usrt", "demf"), BOOKS)]


@pytest.mark.parametrize(
    ("offline_customers", "address_books", "accepted"),
    [
        ("all", (), {(), ("US",), ("EU",), ("EU", "US"), ("EU", "TX")}),
        ("all", ("US", "TX"), {(), ("US",), ("EU", "US"), ("EU", "TX")}),
        ("own", ("US", "TX"), {("US",), ("EU", "US"), ("EU", "TX")}),
        ("own", (), set()),
        ("none", ("US", "TX"), set()),
        ("none", (), set()),
    ],
)
def test_filter_accepts_the_same_one_by_one_and_in_columns(
    offline_customers: str, address_books: tuple[str, ...], accepted: set[tuple[str, ...]]
) -> None:
    """Only customers of the legal entity; shared ones, without address books, unless the channel has only its own."""
    channel_filter = ChannelFilter(
        legal_entity="usrt", address_books=address_books, offline_customers=offline_customers
    )
    column = pl.DataFrame(
        {"customer": [{"legal_entity": entity, "address_books": list(books)} for entity, books in CUSTOMERS]}
    )
    expected = [entity == "usrt" and books in accepted for entity, books in CUSTOMERS]

    assert [channel_filter.accepts(entity, books) for entity, books in CUSTOMERS] == expected
    assert column.select(accepted_by(channel_filter)).to_series().to_list() == expected


def test_filter_that_existed_before_has_the_same_text() -> None:
    """Otherwise every store would resync after an upgrade; and any other filter has another text."""
    usual = ChannelFilter(legal_entity="usrt", address_books=("US",))
    assert usual.text() == '{"legal_entity": "usrt", "address_books": ["US"]}'
    others = {
        ChannelFilter(legal_entity="usrt", address_books=("US",), offline_customers=kept).text()
        for kept in ("own", "none")
    }
    assert len(others | {usual.text()}) == 3
