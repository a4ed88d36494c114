"""Read the lines of a CSV or JSON Lines file, each with its number in the file, in bounded memory.

An error in a single line is that line's `problem`; an error of the whole file raises `ImportRejected` before the first
line is returned.
"""

import codecs
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from tenten.runtime.errors import ImportRejected
from tenten.schemas.messages import Reason

LINE_CHARACTERS_MAX: Final = 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
_DELIMITERS: Final = (",", ";", "\t", "|")
_JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, or a record of several lines with a quoted line break: its cells, or the reason why it is unreadable."""

    number: int
    """The number of its first line in the file, counted from 1."""
    cells: dict[str, str]
    nested: tuple[str, ...] = ()
    """Members of a JSON object that are lists or objects, which are not cells."""
    problem: Reason | None = None


class LineFile:
    """A file of customers that can be read once."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self._bytes = max(1, path.stat().st_size)
        self.is_json = path.suffix.lower() in _JSON_SUFFIXES
        self.columns: tuple[str, ...] = ()
        """The header of a CSV file."""
        if not self.is_json:
            self._start_csv(path)

    @property
    def share(self) -> float:
        """The share of the file that has been read, from 0 to 1."""
        return min(1.0, self._file.buffer.tell() / self._bytes)

    def lines(self) -> Iterator[Line]:
        """The lines that are not blank."""
        return self._json_lines() if self.is_json else self._csv_lines()

    def _start_csv(self, path: Path) -> None:
        header = self._file.readline(LINE_CHARACTERS_MAX)
        self._file.seek(0)
        self._reader = csv.reader(_bounded(self._file), delimiter=_delimiter(header), strict=True)
        try:
            names = [name.strip() for name in next(self._reader)]
        except StopIteration:
            raise ImportRejected(f"{path} is empty: its first line must name the columns") from None
        except csv.Error as error:
            raise ImportRejected(f"the first line of {path} does not name columns: {error}") from error
        repeated = sorted({name for name in names if name and names.count(name) > 1})
        if repeated:
            raise ImportRejected(f"{path} has more than one column {', '.join(repeated)}: rename all but one of them")
        if not any(names):
            raise ImportRejected(f"the first line of {path} is blank: it must name the columns")
        self.columns = tuple(names)

    def _csv_lines(self) -> Iterator[Line]:
        while True:
            number = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _unreadable(number, f"Malformed quotes, or a line that is too long ({error}).")
                continue
            if not cells:
                continue
            if len(cells) != len(self.columns):
                yield _unreadable(number, f"This line has {len(cells)} cells, the header has {len(self.columns)}.")
                continue
            yield Line(
                number=number, cells={name: cell for name, cell in zip(self.columns, cells, strict=True) if name}
            )

    def _json_lines(self) -> Iterator[Line]:
        for number, text in enumerate(_bounded(self._file), start=1):
            if not text.strip():
                continue
            try:
                # Numbers keep their spelling: 1.50 must not become 1.5.
                record = json.loads(text, parse_int=str, parse_float=str)
            except (ValueError, RecursionError) as error:
                yield _unreadable(number, f"Not valid JSON: {getattr(error, 'msg', 'nested too deeply')}.")
                continue
            if not isinstance(record, dict):
                yield _unreadable(number, "Not a JSON object.")
                continue
            nested = tuple(name for name, value in record.items() if isinstance(value, dict | list))
            cells = {name: _text(value) for name, value in record.items() if name not in nested}
            yield Line(number=number, cells=cells, nested=nested)


@contextmanager
def open_lines(path: Path, encoding: str) -> Iterator[LineFile]:
    """Open the file at its start, after reading it once to check its encoding.

    Raises: `ImportRejected` for a missing file, an unknown or wrong encoding, a malformed header.
    """
    try:
        _check_encoding(path, encoding)
        with path.open(encoding=encoding, newline="") as file:
            yield LineFile(file, path)
    except OSError as error:
        raise ImportRejected(f"{path} cannot be read: {error.strerror}") from error


def _check_encoding(path: Path, encoding: str) -> None:
    try:
        decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    except LookupError:
        raise ImportRejected(f"unknown encoding {encoding}: choose utf-8, latin-1, cp1252 or utf-16") from None
    line = 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise ImportRejected(
                    f"line {line} of {path} is not {encoding}: name the file's encoding, for example --encoding latin-1"
                ) from error
            if not chunk:
                return


def _bounded(file: TextIO) -> Iterator[str]:
    """The physical lines; lines that are too long are cut, so that they cannot be parsed."""
    while text := file.readline(LINE_CHARACTERS_MAX):
        if len(text) == LINE_CHARACTERS_MAX and not text.endswith("\n"):
            while (rest := file.readline(LINE_CHARACTERS_MAX)) and not rest.endswith("\n"):
                pass
            text += "\n"
        yield text


def _delimiter(header: str) -> str:
    """The delimiter that divides the header into the most columns."""
    counts = {delimiter: len(next(csv.reader([header], delimiter=delimiter), [])) for delimiter in _DELIMITERS}
    return max(counts, key=lambda delimiter: counts[delimiter])


def _unreadable(number: int, text: str) -> Line:
    return Line(number=number, cells={}, problem=Reason(field="line", code="unreadable", text=text))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
