"""Short references of customers and orders."""

import uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from tenten.rules.reference import ending_of, entered_reference, reference


@given(st.uuids().map(str))
def test_a_reference_is_readable_and_leads_back_to_the_ending_of_its_guid(guid: str) -> None:
    """Two letters, a hyphen, three letters, of none that look alike; however it is typed, it is the same."""
    # when
    short = reference(guid)
    # then
    assert len(short) == 6
    assert short[2] == "-"
    assert not set(short) & set("ILOU")
    assert guid.endswith(ending_of(short))
    assert entered_reference(f" {short.lower().replace('-', '')} ") == short
    assert entered_reference(short.replace("1", "l").replace("0", "o")) == short


def test_consecutive_guids_have_references_of_their_own() -> None:
    """The part of a GUID that counts the time is not in it: the customers of a busy minute are told apart."""
    # given
    made = [str(uuid_utils.uuid7()) for _ in range(200)]
    # then
    assert len({reference(guid) for guid in made}) > 197


def test_other_texts_are_not_references() -> None:
    """A name, a number and a text with a letter that no reference has."""
    for text in ("Ada", "K7-3Q", "K7-3QDD", "C-00000001", "K7-3QU", ""):
        assert entered_reference(text) is None, text
