"""The partition of a key: one at a time, and many at once."""

from hypothesis import given
from hypothesis import strategies as st

from tenten.kafka.partitioner import partition_of, partitions_of
from tests.examples import examples

GUIDS = st.uuids().map(str)


@examples(50)
@given(st.lists(GUIDS | st.text(min_size=36, max_size=36, alphabet="az09-"), max_size=40), st.integers(1, 100))
def test_many_guids_have_the_partitions_of_each(keys: list[str], partitions: int) -> None:
    """Hashing all keys at once gives the partition of each one."""
    assert partitions_of([key.encode() for key in keys], partitions) == [partition_of(key, partitions) for key in keys]


@examples(50)
@given(st.lists(GUIDS | st.text(max_size=70), max_size=20), st.integers(1, 100))
def test_other_keys_have_the_partitions_of_each(keys: list[str], partitions: int) -> None:
    """Keys of any length, such as the names of channels."""
    assert partitions_of([key.encode() for key in keys], partitions) == [partition_of(key, partitions) for key in keys]


def test_partition_is_that_of_the_java_clients() -> None:
    """Of Kafka's own test of its partitioner: the hashes of known keys."""
    known = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    assert {key: partition_of(key, 0x7FFFFFFF) for key in known} == {
        key: (value & 0x7FFFFFFF) % 0x7FFFFFFF for key, value in known.items()
    }
