"""The partition of a key."""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_FACTOR: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_BITS: Final = 0xFFFFFFFF
_NOT_NEGATIVE: Final = 0x7FFFFFFF
_GUID_BYTES: Final = 36


def partition_of(key: str, partitions: int) -> int:
    """The partition that the Java clients, and librdkafka with `murmur2_random`, choose for this key."""
    return (_murmur2(key.encode()) & _NOT_NEGATIVE) % partitions


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partition of each key. GUIDs cost a microsecond each; of other keys there should be few distinct ones."""
    if all(len(key) == _GUID_BYTES for key in keys):
        return _partitions_of_guids(keys, partitions)
    return [(_cached_murmur2(key) & _NOT_NEGATIVE) % partitions for key in keys]


@lru_cache(4_096)
def _cached_murmur2(data: bytes) -> int:
    return _murmur2(data)


def _murmur2(data: bytes) -> int:
    """MurmurHash2 with Kafka's seed.

    Source: https://github.com/apache/kafka/blob/4.1/clients/src/main/java/org/apache/kafka/common/utils/Utils.java
    """
    value = _SEED ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _FACTOR & _BITS
        word = (word ^ word >> 24) * _FACTOR & _BITS
        value = value * _FACTOR & _BITS ^ word
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _BITS
    value = (value ^ value >> 13) * _FACTOR & _BITS
    return value ^ value >> 15


def _partitions_of_guids(keys: Sequence[bytes], partitions: int) -> list[int]:
    """All keys are hashed at once: one large integer has a lane of 64 bits for each key, with 32 bits of its hash, so
    that a product stays within its lane.
    """
    count = len(keys)
    lanes = struct.Struct(f"<{count}Q")
    words = struct.unpack(f"<{count * _GUID_BYTES // 4}I", b"".join(keys))
    one = int.from_bytes(b"\x01\0\0\0\0\0\0\0" * count, "little")
    bits = one * _BITS
    value = one * (_SEED ^ _GUID_BYTES)
    for start in range(_GUID_BYTES // 4):
        word = int.from_bytes(lanes.pack(*words[start :: _GUID_BYTES // 4]), "little") * _FACTOR & bits
        word = (word ^ word >> 24 & bits) * _FACTOR & bits
        value = value * _FACTOR & bits ^ word
    value = (value ^ value >> 13 & bits) * _FACTOR & bits
    value ^= value >> 15 & bits
    hashes = lanes.unpack(value.to_bytes(8 * count, "little"))
    return [(hashed & _NOT_NEGATIVE) % partitions for hashed in hashes]
