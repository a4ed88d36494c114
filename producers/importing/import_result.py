"""The result of an import, and its running totals."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tenten.producers.importing.column_mapping import Columns
from tenten.schemas.messages import Reason

LineResult = Literal["created", "edited", "repeated"] | tuple[Reason, ...]
"""The result of a line; the reasons if it was rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedLine:
    """A line that was not imported: its number in the file, counted from 1, and every reason."""

    line: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """The result of an import: each of the `read` lines was created, edited, repeated or rejected."""

    read: int
    created: int
    edited: int
    repeated: int
    rejected: tuple[RejectedLine, ...]
    columns: Mapping[str, str]
    """The field of each used column."""
    key: str | None
    """The column that identified customers."""
    unused: tuple[str, ...]
    """The columns that were not used."""


@dataclass(slots=True)
class Tally:
    """The running totals of an import."""

    read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[RejectedLine] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    """The columns of the file up to now, in their order."""

    def add_columns(self, columns: Iterable[str]) -> None:
        """Count columns as present in the file."""
        self.columns.update(dict.fromkeys(columns))

    def add(self, read: int, results: Mapping[int, LineResult]) -> None:
        """Count this many lines, with their results by line number."""
        self.read += read
        for line, result in sorted(results.items()):
            if isinstance(result, tuple):
                self.rejected.append(RejectedLine(line=line, reasons=result))
            else:
                self.counts[result] += 1

    def result(self, columns: Columns) -> ImportResult:
        """The totals as the result of the import."""
        used = {column: name for column, name in columns.fields.items() if column in self.columns}
        return ImportResult(
            read=self.read,
            created=self.counts["created"],
            edited=self.counts["edited"],
            repeated=self.counts["repeated"],
            rejected=tuple(self.rejected),
            columns=used,
            key=columns.key,
            unused=tuple(name for name in self.columns if name and name not in used and name != columns.key),
        )
