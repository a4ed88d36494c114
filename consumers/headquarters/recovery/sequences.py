"""Number sequences, advanced past every number in use; and the holes in those that promise to have none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, text

from tenten.rules.number_sequence import NumberFormat, number_format

HOLES_MAX: Final = 20
"""The holes of a sequence that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Consecutive numbers of a continuous sequence that no customer has."""

    legal_entity: str
    first: str
    last: str
    numbers: int


def advance_sequences(engine: Engine) -> list[Hole]:
    """Advance each sequence of account numbers past the largest number in use, and return the holes. Idempotent.

    Erased customers without a number explain as many holes. Nothing is filled.
    """
    with engine.begin() as headquarters:
        sequences = headquarters.execute(_SEQUENCES).all()
        holes: list[Hole] = []
        for row in sequences:
            written = number_format(row.format)
            headquarters.execute(_ADVANCE, _parameters(row.legal_entity, written))
            if row.continuous:
                holes.extend(_holes(headquarters, row.legal_entity, written))
    return holes


def _parameters(legal_entity: str, written: NumberFormat) -> dict[str, object]:
    return {
        "entity": legal_entity,
        "before": written.before,
        "after": written.after,
        "before_length": len(written.before),
        "after_length": len(written.after),
    }


def _holes(headquarters: Connection, legal_entity: str, written: NumberFormat) -> Iterator[Hole]:
    for row in headquarters.execute(_HOLES, _parameters(legal_entity, written) | {"rows_max": HOLES_MAX}):
        yield Hole(
            legal_entity=legal_entity,
            first=written.account_number(int(row.previous) + 1),
            last=written.account_number(int(row.number) - 1),
            numbers=int(row.number - row.previous) - 1,
        )


_SEQUENCES: Final = text("SELECT legal_entity, format, continuous FROM number_sequences ORDER BY 1 FOR UPDATE")

_NUMBERS: Final = """
    SELECT digits::numeric AS number
    FROM customers, LATERAL (
        SELECT substr(account_number, :before_length + 1, length(account_number) - :before_length - :after_length)
    ) AS part (digits)
    WHERE legal_entity = :entity AND length(account_number) > :before_length + :after_length
      AND starts_with(account_number, :before) AND right(account_number, :after_length) = :after
      AND digits ~ '^[0-9]{1,18}$'
"""
"""The numbers of this legal entity in the format of its sequence, or in a shorter one with the same texts."""

_ADVANCE: Final = text(
    f"""
    UPDATE number_sequences SET next = greatest(next, used.number + 1)
    FROM (SELECT max(number) AS number FROM ({_NUMBERS}) AS numbers) AS used
    WHERE legal_entity = :entity AND used.number IS NOT NULL
    """  # noqa: S608 - constants of this module
)

_HOLES: Final = text(
    f"""
    SELECT previous, number
    FROM (
        SELECT number, lag(number) OVER (ORDER BY number) AS previous
        FROM ({_NUMBERS} UNION ALL SELECT next FROM number_sequences WHERE legal_entity = :entity) AS numbers
    ) AS steps
    WHERE number > previous + 1 ORDER BY number LIMIT :rows_max
    """  # noqa: S608 - constants of this module
)
"""Where the next used number, or in the end the next one of the sequence, is not the following one."""
