"""The Avro encoding of single values, and the encoding of the smallest value of a type."""

from collections.abc import Callable, Mapping
from typing import Any, Final


def zigzag(number: int) -> bytes:
    """An Avro int or long: zigzag, then 7 bits a byte, the lowest first."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LENGTHS: Final = tuple(zigzag(length) for length in range(256))
"""The lengths of ordinary texts, encoded once."""


def text_bytes(text: str) -> bytes:
    """An Avro string: its length in bytes, then UTF-8."""
    return data_bytes(text.encode())


def data_bytes(data: bytes) -> bytes:
    """Avro bytes: their length, then the bytes."""
    length = len(data)
    return (_LENGTHS[length] if length < len(_LENGTHS) else zigzag(length)) + data


def decimal_bytes(unscaled: int) -> bytes:
    """An Avro decimal: its unscaled number as the shortest two's complement that keeps a bit for the sign."""
    return data_bytes(unscaled.to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True))


def zero_bytes(schema: Any) -> bytes:
    """The zero of a type: the empty text, 0, false, the first symbol, null where it is nullable, no items."""
    if isinstance(schema, list):
        return b"\x00" + (b"" if schema[0] == "null" else zero_bytes(schema[0]))
    if isinstance(schema, dict) and schema["type"] == "record":
        return b"".join(zero_bytes(field["type"]) for field in schema["fields"])
    return b"\x00"


def default_bytes(schema: Any, default: Any) -> bytes:
    """The encoding of a default, given as JSON; that of a union has the union's first type."""
    if isinstance(schema, list):
        return b"\x00" + default_bytes(schema[0], default)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return b"".join(default_bytes(field["type"], default[field["name"]]) for field in schema["fields"])
    if kind == "array":
        members = b"".join(default_bytes(schema["items"], member) for member in default)
        return (zigzag(len(default)) + members if default else b"") + b"\x00"
    if kind == "enum":
        return zigzag(schema["symbols"].index(default))
    return _DEFAULTS[kind](default)


_DEFAULTS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "null": lambda _: b"",
    "boolean": lambda value: bytes([value]),
    "int": zigzag,
    "long": zigzag,
    "string": text_bytes,
    "bytes": lambda value: data_bytes(value.encode("iso-8859-1")),
}


def leading_texts(body: bytes, count: int) -> list[str] | None:
    """The texts at the beginning of a record; None if it does not begin with that many."""
    texts = []
    at = 0
    for _ in range(count):
        length, shift = 0, 0
        while True:
            if at >= len(body) or shift > _LENGTH_BITS_MAX:
                return None
            byte = body[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        # Zigzag: an odd number is negative.
        size = length >> 1
        if length & 1 or size > len(body) - at:
            return None
        try:
            texts.append(body[at : at + size].decode())
        except UnicodeDecodeError:
            return None
        at += size
    return texts


_LENGTH_BITS_MAX: Final = 28
