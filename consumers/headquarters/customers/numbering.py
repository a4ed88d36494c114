"""Account numbers for new customers, from the number sequence of each legal entity.

A continuous sequence has no gap: its row stays locked until the transaction that uses the numbers ends, so workers take
turns, and a transaction locks it as late as it can. The numbers of any other sequence are reserved in blocks, each in a
transaction of its own, so workers do not wait for each other; a crash leaves the rest of a block as a gap.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl
from sqlalchemy import Connection, Engine, bindparam, select, update
from structlog import get_logger

from tenten.rules.number_sequence import NEARLY_USED_UP, NumberFormat, number_format, take
from tenten.rules.number_sequence_columns import account_numbers
from tenten.schemas.messages import Reason
from tenten.schemas.tables.headquarters import number_sequences

log = get_logger(__name__)

BLOCK_NUMBERS: Final = 1_000
"""Numbers in a block that a worker reserves: the largest gap that a crash leaves."""


class Blocks:
    """The numbers that this worker has reserved from sequences that may have gaps. Lives as long as the worker.

    Numbers are taken for one transaction at a time. They are reused only if that transaction certainly failed: a batch
    that is retried many times would otherwise use up the sequence.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reserved: dict[str, list[int]] = {}
        self._taken: dict[str, int] = {}
        """By legal entity: how many of the reserved numbers, from the first on, the transaction has taken."""
        self._is_outdated = False

    def forget(self) -> None:
        """Use no reserved number any more: the database is another one, which may not know of the blocks.

        Any thread may call it, before it uses the other database.
        """
        self._is_outdated = True

    def begin(self) -> None:
        """Begin a transaction; the numbers of the previous one are used."""
        for legal_entity, taken in self._taken.items():
            del self._reserved[legal_entity][:taken]
        self._taken = {}

    def give_back(self) -> None:
        """Free the numbers of a transaction that was rolled back."""
        self._taken = {}

    def take(self, legal_entity: str, shape: NumberFormat, count: int) -> list[int]:
        """The next `count` numbers, fewer when the sequence is used up.

        Commits a transaction of its own when a new block is needed.
        """
        if self._is_outdated:
            self._is_outdated = False
            self._reserved.clear()
            self._taken.clear()
        reserved = self._reserved.setdefault(legal_entity, [])
        first = self._taken.get(legal_entity, 0)
        missing = first + count - len(reserved)
        if missing > 0:
            reserved.extend(self._reserve_block(legal_entity, shape, max(BLOCK_NUMBERS, missing)))
        numbers = reserved[first : first + count]
        self._taken[legal_entity] = first + len(numbers)
        return numbers

    def _reserve_block(self, legal_entity: str, shape: NumberFormat, count: int) -> range:
        with self._engine.begin() as headquarters:
            query = select(number_sequences.c.next).where(number_sequences.c.legal_entity == legal_entity)
            first = headquarters.execute(query.with_for_update()).scalar_one()
            block = take(shape, first, count).numbers
            headquarters.execute(
                update(number_sequences)
                .where(number_sequences.c.legal_entity == legal_entity)
                .values(next=first + len(block))
            )
        warn_when_nearly_used_up(legal_entity, shape, first + len(block))
        return range(first, first + len(block))


_NO_SEQUENCE: Final = number_format("#")
"""The format of numbers that do not exist."""


class Allotment:
    """The account numbers of one SQL transaction. Continuous sequences stay locked until it ends."""

    def __init__(self, connection: Connection, blocks: Blocks) -> None:
        self._connection = connection
        self._blocks = blocks
        self._sequences: dict[str, tuple[NumberFormat, bool]] = {}
        self._next: dict[str, int] = {}

    def lock(self, legal_entities: Iterable[str]) -> None:
        """Lock the continuous sequences of these legal entities, ordered by name; may block on other workers.

        One call names all that the transaction needs: workers that lock in different orders would block each other.
        """
        names = set(legal_entities) - self._sequences.keys()
        if not names:
            return
        legal_entity = number_sequences.c.legal_entity
        locked = select(number_sequences).where(legal_entity.in_(sorted(names)), number_sequences.c.continuous)
        rows = list(self._connection.execute(locked.order_by(legal_entity).with_for_update()))
        others = names.difference(row.legal_entity for row in rows)
        if others:
            rows += self._connection.execute(select(number_sequences).where(legal_entity.in_(sorted(others))))
        self._sequences.update((row.legal_entity, (number_format(row.format), row.continuous)) for row in rows)
        self._next.update((row.legal_entity, row.next) for row in rows if row.continuous)

    def take(self, legal_entity: str, count: int) -> pl.Series:
        """The next `count` account numbers as a column; fewer when the sequence is used up, none without a sequence."""
        shape, numbers = self._take(legal_entity, count)
        return account_numbers(shape, pl.Series(numbers, dtype=pl.Int64))

    def take_one(self, legal_entity: str) -> str | None:
        """The next account number; None when the sequence is used up, or missing: see `no_number`."""
        shape, numbers = self._take(legal_entity, 1)
        return shape.account_number(numbers[0]) if numbers else None

    def _take(self, legal_entity: str, count: int) -> tuple[NumberFormat, Sequence[int]]:
        if legal_entity not in self._sequences:
            return _NO_SEQUENCE, ()
        shape, continuous = self._sequences[legal_entity]
        if not continuous:
            return shape, self._blocks.take(legal_entity, shape, count)
        numbers = take(shape, self._next[legal_entity], count).numbers
        self._next[legal_entity] += len(numbers)
        return shape, numbers

    def no_number(self, legal_entity: str) -> Reason:
        """The reason why a new customer of this legal entity gets no account number yet."""
        if legal_entity in self._sequences:
            return Reason(
                field="account_number",
                code="number_sequence_used_up",
                text=f"The account numbers of {legal_entity!r} are used up; headquarters must widen their format.",
            )
        return Reason(
            field="account_number",
            code="no_number_sequence",
            text=f"Headquarters has no sequence of account numbers for {legal_entity[:64]!r} yet.",
        )

    def write(self) -> None:
        """Advance the continuous sequences by exactly the numbers taken."""
        for legal_entity, next_number in self._next.items():
            warn_when_nearly_used_up(legal_entity, self._sequences[legal_entity][0], next_number)
        if self._next:
            self._connection.execute(
                update(number_sequences)
                .where(number_sequences.c.legal_entity == bindparam("of"))
                .values(next=bindparam("next_number")),
                [{"of": legal_entity, "next_number": number} for legal_entity, number in self._next.items()],
            )


_warned: set[str] = set()
"""The legal entities whose sequence this process has warned about."""


def warn_when_nearly_used_up(legal_entity: str, shape: NumberFormat, next_number: int) -> None:
    """Warn, once a process, that a sequence is nearly used up."""
    if legal_entity not in _warned and next_number > NEARLY_USED_UP * shape.number_max:
        _warned.add(legal_entity)
        log.warning(
            "number_sequence_nearly_used_up", legal_entity=legal_entity, next=next_number, last=shape.number_max
        )
