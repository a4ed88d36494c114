"""The columnar check of paths at headquarters, compared with the rule."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.consumers.headquarters.customers.classify import has_known_paths
from tenten.rules.customer import PARTS, SCALARS, is_path
from tests.customers import IDS

NAMES = [*SCALARS, "address_books", "legal_entity", *PARTS, "shoe_size", "account_number", ""]
PATHS = st.one_of(
    st.sampled_from(NAMES),
    st.builds("{}/{}".format, st.sampled_from(NAMES), st.text(max_size=3)),
    st.builds("{}/{}".format, st.sampled_from(PARTS), st.integers(80, 100).map("x".__mul__)),
    st.text(max_size=5),
)


def accepted(*events: list[str]) -> list[bool]:
    """The result of the columnar check for events with these paths."""
    frame = pl.DataFrame({"changed": events}, schema={"changed": pl.List(pl.String)})
    return frame.select(has_known_paths()).to_series().to_list()


@given(st.lists(st.lists(PATHS, max_size=4), min_size=1))
def test_columnar_check_never_accepts_an_unknown_path(events: list[list[str]]) -> None:
    """Rows that the check accepts name only paths that the rule knows."""
    for paths, known in zip(events, accepted(*events), strict=True):
        assert not known or all(map(is_path, paths))


@pytest.mark.parametrize(
    "path", [*SCALARS, "address_books", f"addresses/{IDS[0]}", "attributes/a/b c", "affiliations/Ü"]
)
def test_columnar_check_accepts_ordinary_paths(path: str) -> None:
    """Ordinary creates keep the bulk way."""
    assert accepted([], [path], [path, path]) == [True, True, True]
