"""A set of customer ids in 16 bytes each: a Python set of a million texts would need 143 MB."""

from collections.abc import Iterable
from typing import Final

_BUCKETS: Final = 256
_BUCKET_BYTES_MIN: Final = 64 * 1024
_KEY_BYTES: Final = 16


class KeySet:
    """GUIDs, in a bucket for each first byte. Uses 16 bytes for each id, at most 32 while repeated ids are added."""

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self._bytes_max = [_BUCKET_BYTES_MIN] * _BUCKETS
        self._looked_up = 0
        self._bucket: frozenset[bytes] | None = None

    def add(self, ids: Iterable[str]) -> None:
        """Add these ids. Idempotent."""
        self._bucket = None
        buckets = self._buckets
        for guid in ids:
            key = bytes.fromhex(guid.replace("-", ""))
            buckets[key[0]] += key
        for number, bucket in enumerate(buckets):
            if len(bucket) > self._bytes_max[number]:
                bucket[:] = b"".join(_keys(bucket))
                self._bytes_max[number] = max(_BUCKET_BYTES_MIN, 2 * len(bucket))

    def bytes(self) -> int:
        """The size of the ids."""
        return sum(map(len, self._buckets))

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those ids that are not in the set. Fast for ids in ascending order."""
        missing: list[str] = []
        for guid in ids:
            key = bytes.fromhex(guid.replace("-", ""))
            if self._bucket is None or key[0] != self._looked_up:
                self._looked_up = key[0]
                self._bucket = _keys(self._buckets[key[0]])
            if key not in self._bucket:
                missing.append(guid)
        return missing


def _keys(bucket: bytearray) -> frozenset[bytes]:
    whole = bytes(bucket)
    return frozenset(whole[first : first + _KEY_BYTES] for first in range(0, len(whole), _KEY_BYTES))
