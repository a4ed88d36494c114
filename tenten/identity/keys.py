"""Keys, and the message authentication code of a record. Pure: no file, no database, no network.

Headquarters and each store have an X25519 key pair. From its own private key and the other's public key each side
derives the same secret, and from that, by HKDF-SHA256, the key of their records. HMAC-SHA256 with it proves that a
record was written by one of the two.
Source: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 2104 (HMAC).
"""

import hashlib
import hmac
import struct
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
"""The length of a private key, of a public key and of the key of records."""

MAC_BYTES: Final = 32

_KID_CHARACTERS: Final = 16
_INFO: Final = b"tenten records 1"
"""Keeps keys of records apart from any other key that may be derived from the same secret."""


class KeyPair(NamedTuple):
    """An X25519 key pair, each key as its raw bytes."""

    private_key: bytes
    public_key: bytes

    def __repr__(self) -> str:
        """Without the private key: logs and error messages show values."""
        return f"KeyPair(kid={kid(self.public_key)!r})"


def new_key_pair() -> KeyPair:
    """A new key pair, from the random numbers of the system."""
    private_key = X25519PrivateKey.generate().private_bytes_raw()
    return KeyPair(private_key, public_key_of(private_key))


def public_key_of(private_key: bytes) -> bytes:
    """The public key that belongs to a private key. Raises: `ValueError` for a key of another length."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def kid(public_key: bytes) -> str:
    """The id of a key: the first 16 hexadecimal digits of the SHA-256 of the public key.

    >>> kid(bytes(32))
    '66687aadf862bd77'
    """
    return hashlib.sha256(public_key).hexdigest()[:_KID_CHARACTERS]


def shared_secret(own_private: bytes, other_public: bytes) -> bytes:
    """X25519: the same 32 bytes on both sides.

    Raises: `ValueError` for a key of another length, and for a public key with which everybody gets the same secret.
    """
    return X25519PrivateKey.from_private_bytes(own_private).exchange(X25519PublicKey.from_public_bytes(other_public))


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """A key of this length, derived from a secret."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def record_key(own_private: bytes, other_public: bytes) -> bytes:
    """The key of the records between the owners of two key pairs: the same on both sides, 32 bytes.

    Costs about 0.1 ms, so callers keep it. Raises: `ValueError` for keys that `shared_secret` refuses.
    """
    public_keys = sorted((public_key_of(own_private), other_public))
    return hkdf_sha256(
        shared_secret(own_private, other_public), salt=b"", info=_INFO + b"".join(public_keys), length=KEY_BYTES
    )


def record_mac(key: bytes, logical_topic: str, record_key: bytes, value: bytes) -> bytes:
    """HMAC-SHA256 of a record: 32 bytes. `key` is what the function `record_key` returns.

    `logical_topic` is the topic's name without the prefix of an installation, `record_key` the record's own key, and
    `value` its value as it is sent. The framing is part of that: in another schema the same bytes say something else.
    Each is preceded by its length, four bytes big-endian, so that no two records give the same message.
    """
    topic = logical_topic.encode()
    message = b"".join((_LENGTH(len(topic)), topic, _LENGTH(len(record_key)), record_key, _LENGTH(len(value)), value))
    return hmac.digest(key, message, "sha256")


_LENGTH: Final = struct.Struct(">I").pack


class RecordCodes:
    """The codes of the records with one key on one topic: `record_mac` at half the cost."""

    def __init__(self, key: bytes, logical_topic: str) -> None:
        """`key` is what `record_key` returns."""
        topic = logical_topic.encode()
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER_PAD) + _LENGTH(len(topic)) + topic)
        self._outer = hashlib.sha256(padded.translate(_OUTER_PAD))

    def mac(self, record_key: bytes, value: bytes) -> bytes:
        """The code of a record. Any thread may call it."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(_LENGTH(len(record_key)) + record_key + _LENGTH(len(value)) + value)
        outer.update(inner.digest())
        return outer.digest()


_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))
