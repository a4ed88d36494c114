"""The set of customer ids that a resync has seen, and the records that it defers."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from tenten.consumers.channel.distribution.deferred_records import DeferredRecords
from tenten.consumers.channel.distribution.key_set import KeySet
from tenten.kafka.assigned_reader import Records

_IDS = st.lists(st.uuids().map(str), max_size=50)


@given(added=_IDS, others=_IDS)
def test_only_ids_that_were_not_added_are_missing(added: list[str], others: list[str]) -> None:
    """Ids that were added, once or twice, are in the set; no others are."""
    # given
    seen = KeySet()
    seen.add(added)
    assert seen.missing(sorted(added)) == []
    seen.add(added[:3])
    # then
    assert set(seen.missing(sorted(added + others))) == set(others) - set(added)


def test_set_uses_little_memory_for_ids_that_are_added_again_and_again() -> None:
    """Ids of one bucket that are added many times are stored once or twice."""
    # given
    ids = [f"00{str(uuid.uuid4())[2:]}" for _ in range(1_000)]
    seen = KeySet()
    # when
    for _ in range(50):
        seen.add(ids)
    # then
    assert seen.missing(sorted(ids)) == []
    assert seen.bytes() < 150_000


def test_deferred_records_are_the_last_of_their_keys() -> None:
    """A record replaces an earlier one of its key; removed records are gone; the others follow in the order of keys."""
    records = Records(keys=[b"b", b"a", b"c"], values=[b"1", None, b"3"], partitions=[0, 1, 0], offsets=[5, 6, 7])
    with DeferredRecords() as deferred:
        # given
        deferred.remove([b"a"])
        assert deferred.following(b"", 10).keys == ()
        deferred.store(records, {b"a", b"b"})
        later = Records(keys=[b"b"], values=[b"2"], partitions=[0], offsets=[8])
        deferred.store(later, {b"b"})
        # when
        found = deferred.following(b"", 10)
        # then
        assert (found.keys, found.values, found.partitions, found.offsets) == (
            [b"a", b"b"],
            [None, b"2"],
            [1, 0],
            [6, 8],
        )
        assert deferred.following(b"a", 10).keys == [b"b"]
        assert deferred.following(b"", 1).keys == [b"a"]
        # when
        deferred.remove([b"a", b"b"])
        # then
        assert deferred.following(b"", 10).keys == []
