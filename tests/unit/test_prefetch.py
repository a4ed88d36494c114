"""Prefetching: order, overlap, errors."""

from collections.abc import Iterator
from threading import Event, get_ident

import pytest

from tenten.runtime.prefetch import Prefetcher, prefetched

DEADLINE_SECONDS = 60.0


def test_items_keep_their_order() -> None:
    """The iterator ends where the source ends."""
    assert list(prefetched(iter(range(1, 50)))) == list(range(1, 50))


def test_next_item_is_computed_while_the_caller_works() -> None:
    """The second item is computed before the caller asks for it."""
    # given
    computed = Event()

    def items() -> Iterator[str]:
        yield "first"
        computed.set()
        yield "second"

    # when
    iterator = prefetched(items())
    first = next(iterator)

    # then
    assert first == "first"
    assert computed.wait(DEADLINE_SECONDS)
    assert list(iterator) == ["second"]


def test_error_of_the_source_is_raised_in_its_place() -> None:
    """Items before the error are delivered."""

    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    # when
    iterator = prefetched(items())

    # then
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="broken"):
        next(iterator)


def test_prefetched_item_is_used_only_for_its_source() -> None:
    """A prefetched item is discarded if the caller asks for another source, as after a rewind."""
    # given
    prepared: list[tuple[str, int]] = []

    def prepare(source: list[str]) -> str:
        prepared.append((source[0], get_ident()))
        return source[0].upper()

    first, second, third = ["a"], ["b"], ["c"]

    # when
    with Prefetcher(prepare) as prefetcher:
        items = [prefetcher.get(first, second), prefetcher.get(second, third), prefetcher.get(first, None)]

    # then
    assert items == ["A", "B", "A"]
    own = get_ident()
    assert sorted((name, thread == own) for name, thread in prepared) == [
        ("a", True),
        ("a", True),
        ("b", False),
        ("c", False),
    ]
