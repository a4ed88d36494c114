"""Encode a batch of records from columns, driven by the Avro schema.

An Avro record is the encodings of its fields one after the other, so a batch is encoded field by field. Many encodings
are UTF-8 themselves: a text of fewer than 64 bytes (its length is an ASCII character), a GUID, a symbol, a boolean, a
small number, a null. Such fields are built and joined as text columns in polars; the others are Python bytes.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, repeat
from types import MappingProxyType
from typing import Any, Final

import polars as pl

from tenten.avro.primitives import data_bytes, decimal_bytes, default_bytes, text_bytes, zigzag
from tenten.avro.resolution import column_type
from tenten.avro.wire import AvroSchema

_Piece = str | bytes | pl.Series | Sequence[bytes]
"""The encodings of one field or more: the same for all rows (text or bytes), a text column, or bytes by row."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NOTHING: Final[Mapping[str, Sequence[bytes]]] = MappingProxyType({})
_ASCII_END: Final = 64
"""Lengths and numbers below are encoded as one ASCII character."""
_CHARACTERS: Final = pl.Series([chr(2 * number) for number in range(_ASCII_END)], dtype=pl.String)
_WORD: Final = struct.Struct("<Q")
_WORD_MIN: Final = 1 << 48
_WORD_END: Final = 1 << 55
"""Numbers from `_WORD_MIN` to below `_WORD_END` take 8 bytes: as times in microseconds, the years 1978 to 3111."""


def encode_columns(
    schema: AvroSchema,
    columns: pl.DataFrame | Mapping[str, Sequence[Any]],
    header: bytes | None = None,
    encoded: Mapping[str, Sequence[bytes]] = _NOTHING,
) -> list[bytes]:
    """One framed value a row, with single-object framing unless another header is given.

    Columns are those of a frame, or sequences of Python values, which are faster for a few rows. Fields without a
    column have the schema's default, also inside records; other columns are ignored. `encoded` has the encodings of
    fields that the caller has encoded already. Raises: `ValueError` for a null in a field that is not nullable, and for
    a field without a column and a default.
    """
    start = schema.header if header is None else header
    by_name = columns.to_dict(as_series=True) if isinstance(columns, pl.DataFrame) else columns
    height = len(next(iter((*by_name.values(), *encoded.values()))))
    rows = _rows(_record(schema.json["fields"], by_name, encoded), height)
    return [start + row for row in rows]


def _rows(pieces: Iterable[_Piece], height: int) -> Iterable[bytes]:
    """The pieces of each row, joined."""
    by_row = [
        repeat(piece, height) if isinstance(piece, bytes) else piece for piece in _with_texts_joined(pieces, height)
    ]
    return by_row[0] if len(by_row) == 1 else map(b"".join, zip(*by_row, strict=True))


def _with_texts_joined(pieces: Iterable[_Piece], height: int) -> Iterable[bytes | Sequence[bytes]]:
    texts: list[str | pl.Series] = []
    for piece in pieces:
        if isinstance(piece, str | pl.Series):
            texts.append(piece)
            continue
        if texts:
            yield _joined(texts, height)
            texts = []
        yield piece
    if texts:
        yield _joined(texts, height)


def _joined(texts: Sequence[str | pl.Series], height: int) -> bytes | Sequence[bytes]:
    if all(isinstance(text, str) for text in texts):
        return "".join(map(str, texts)).encode()
    columns = [pl.lit(text) if isinstance(text, str) else text for text in texts]
    joined = pl.select(pl.concat_str(columns).cast(pl.Binary)).to_series()
    assert len(joined) == height
    values: list[bytes] = joined.to_list()
    return values


def _record(
    fields: Iterable[Mapping[str, Any]],
    columns: Mapping[str, pl.Series | Sequence[Any]],
    encoded: Mapping[str, Sequence[bytes]] = _NOTHING,
) -> Iterable[_Piece]:
    """The pieces of a record's fields, in the schema's order."""
    for field in fields:
        name = field["name"]
        if name in encoded:
            yield encoded[name]
        elif name in columns:
            values = columns[name]
            yield from (
                _value(name, field["type"], values)
                if isinstance(values, pl.Series)
                else _python_values(name, field["type"], values)
            )
        elif "default" in field:
            yield _constant(default_bytes(field["type"], field["default"]))
        else:
            raise ValueError(f"the field {name} has neither a column nor a default")


def _constant(data: bytes) -> str | bytes:
    return data.decode() if data.isascii() else data


def _value(name: str, schema: Any, values: pl.Series) -> Iterable[_Piece]:
    if isinstance(schema, list):
        return _nullable(name, schema[1], values)
    if values.null_count():
        raise ValueError(f"the field {name} is null in a row, and not nullable")
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return _record(schema["fields"], _columns(values))
    if kind == "array":
        return [_list(schema["items"], values)]
    logical_type = schema.get("logicalType") if isinstance(schema, dict) else None
    return [_COLUMN_ENCODERS[logical_type or kind](schema, values)]


def _python_values(name: str, schema: Any, values: Sequence[Any]) -> Iterable[_Piece]:
    """As `_value`, from Python values; nested types become a column first."""
    is_nullable = isinstance(schema, list)
    present = schema[1] if is_nullable else schema
    kind = (present.get("logicalType") or present["type"]) if isinstance(present, dict) else present
    encoder = _PYTHON_ENCODERS.get(kind)
    if encoder is None:
        return _value(name, schema, pl.Series(name, values, dtype=column_type(schema)))
    distinct = set(values)
    if None in distinct and not is_nullable:
        raise ValueError(f"the field {name} is null in a row, and not nullable")
    mark = b"\x02" if is_nullable else b""
    if len(distinct) > len(values) // 2:
        return [[b"\x00" if value is None else mark + encoder(present, value) for value in values]]
    encodings = {value: b"\x00" if value is None else mark + encoder(present, value) for value in distinct}
    return [_constant(encodings[values[0]])] if len(encodings) == 1 else [[encodings[value] for value in values]]


_PYTHON_ENCODERS: Final[Mapping[str, Callable[[Any, Any], bytes]]] = {
    "string": lambda _, text: text_bytes(text),
    "uuid": lambda _, text: text_bytes(text),
    "enum": lambda schema, symbol: zigzag(schema["symbols"].index(symbol)),
    "int": lambda _, number: zigzag(number),
    "long": lambda _, number: zigzag(number),
    "timestamp-micros": lambda _, at: zigzag((at - _EPOCH) // _MICROSECOND),
}


def _columns(records: pl.Series) -> dict[str, pl.Series]:
    """The fields of a column of records."""
    return {name: records.struct.field(name) for name in records.struct.fields}


def _nullable(name: str, schema: Any, values: pl.Series) -> Iterable[_Piece]:
    if not values.null_count():
        return ["\x02", *_value(name, schema, values)]
    if values.null_count() == len(values):
        return ["\x00"]
    present = list(_value(name, schema, values.drop_nulls()))
    is_present = values.is_not_null()
    if len(present) == 1 and isinstance(present[0], pl.Series):
        nulls = pl.repeat("\x00", len(values), dtype=pl.String, eager=True)
        return [nulls.scatter(is_present.arg_true(), "\x02" + present[0])]
    rows = iter(_rows(["\x02", *present], len(values) - values.null_count()))
    return [[next(rows) if is_set else b"\x00" for is_set in is_present]]


def _list(items: Any, lists: pl.Series) -> _Piece:
    """Lists, each as one block of its members."""
    counts = lists.list.len()
    members = lists.filter(counts > 0).explode()
    if members.is_empty():
        return "\x00"
    encoded = iter(_rows(_value("items", items, members), len(members)))
    starts = {count: zigzag(count) for count in counts.unique()}
    return [
        starts[count] + b"".join(islice(encoded, count)) + b"\x00" if count else b"\x00" for count in counts.to_list()
    ]


def _texts(_: Any, texts: pl.Series) -> _Piece:
    lengths = texts.str.len_bytes()
    is_short = len(texts) == 0 or int(lengths.max()) < _ASCII_END  # type: ignore[arg-type]  # a column of lengths
    return _CHARACTERS.gather(lengths) + texts if is_short else list(map(text_bytes, texts))


def _symbols(schema: Any, symbols: pl.Series) -> _Piece:
    codes = {symbol: chr(2 * number) for number, symbol in enumerate(schema["symbols"])}
    return symbols.replace_strict(codes, return_dtype=pl.String)


def _booleans(_: Any, booleans: pl.Series) -> _Piece:
    return _CHARACTERS.gather(booleans.cast(pl.UInt32)).str.replace("\x02", "\x01", literal=True)


def _numbers(_: Any, values: pl.Series) -> _Piece:
    numbers = values.to_physical()
    lowest, highest = numbers.min(), numbers.max()
    if not isinstance(lowest, int) or not isinstance(highest, int):
        return b""  # no rows
    if lowest == highest:
        return _constant(zigzag(lowest))
    if lowest >= 0 and highest < _ASCII_END:
        return _CHARACTERS.gather(numbers)
    if lowest >= _WORD_MIN and highest < _WORD_END:
        return _eight_bytes(numbers)
    encoded = {number: zigzag(number) for number in numbers.unique()}
    return list(map(encoded.__getitem__, numbers))


def _eight_bytes(numbers: pl.Series) -> Sequence[bytes]:
    """Numbers that take 8 bytes: 7 bits a byte, the lowest first, each byte but the last with its highest bit set."""
    doubled = pl.lit(numbers.cast(pl.UInt64)) * 2
    word = pl.sum_horizontal(
        ((doubled // (1 << (7 * place)) & 0x7F) | (0x80 if place < 7 else 0)) * (1 << (8 * place)) for place in range(8)
    )
    return list(map(_WORD.pack, pl.select(word.cast(pl.UInt64)).to_series()))


def _times(schema: Any, times: pl.Series) -> _Piece:
    return _numbers(schema, times.dt.cast_time_unit("us"))


def _decimals(schema: Any, decimals: pl.Series) -> _Piece:
    scaled = decimals.cast(pl.Decimal(schema["precision"], schema["scale"]))
    return list(map(decimal_bytes, scaled.to_physical()))


def _bytes(_: Any, data: pl.Series) -> _Piece:
    return list(map(data_bytes, data))


_COLUMN_ENCODERS: Final[Mapping[str, Callable[[Any, pl.Series], _Piece]]] = {
    "string": _texts,
    "uuid": _texts,
    "enum": _symbols,
    "boolean": _booleans,
    "int": _numbers,
    "long": _numbers,
    "date": _numbers,
    "timestamp-micros": _times,
    "decimal": _decimals,
    "bytes": _bytes,
}
"""By type, or logical type: the encodings of a column without nulls."""
