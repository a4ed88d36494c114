"""The token with which a store joins: made at headquarters, given to the store once.

    base64url( version, 1 byte | checksum, 8 bytes | the content as compressed JSON )

It has all that a store needs before it can read its settings: its name, how to reach Kafka, headquarters' public key,
and a secret that is good for one joining.
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter

from tenten.identity.join_proof import SECRET_BYTES
from tenten.identity.keys import new_key_pair, record_key
from tenten.runtime.errors import TokenRefused
from tenten.runtime.settings.kafka_properties import CONNECTION_PROPERTIES
from tenten.runtime.settings.values import Id, Prefix, WebAddress

_VERSION: Final = 1
_CHECKSUM_BYTES: Final = 8
_CONTENT_BYTES_MAX: Final = 64 * 1024

_CUT_OFF: Final = "this is not a complete token: copy all of it, from the first character to the last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The content of a token."""

    channel_id: str
    secret: bytes = field(repr=False)
    """32 bytes, from which proof and password are derived (`join_proof.py`)."""
    headquarters_public_key: bytes
    """32 bytes, X25519."""
    expires_at: datetime
    kafka: Mapping[str, str] = field(repr=False)
    """Properties of librdkafka, without a password."""
    has_password: bool = False
    """Whether the store's user at Kafka has the password that is derived from the secret."""
    prefix: str = ""
    """Of topics and groups."""
    partitions: int | None = None
    """Of keyed topics, where it is not the default."""
    schema_registry_url: str | None = None


def encode_token(token: Token) -> str:
    """The token as text without spaces."""
    content = {
        "channel_id": token.channel_id,
        "secret": _text(token.secret),
        "headquarters_public_key": _text(token.headquarters_public_key),
        "expires_at": token.expires_at.astimezone(UTC).isoformat(timespec="seconds"),
        "kafka": dict(token.kafka),
        "has_password": token.has_password,
        "prefix": token.prefix,
        "partitions": token.partitions,
        "schema_registry_url": token.schema_registry_url,
    }
    packed = bytes([_VERSION]) + zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return _text(packed[:1] + _checksum(packed) + packed[1:])


def decode_token(text: str) -> Token:
    """The content of a token. Does not look at its expiry.

    Raises: `TokenRefused` for a text that is damaged, or a token of a later release.
    """
    data = _bytes("".join(text.split()))
    packed = data[:1] + data[1 + _CHECKSUM_BYTES :]
    if data[1 : 1 + _CHECKSUM_BYTES] != _checksum(packed):
        raise TokenRefused(_CUT_OFF)
    if packed[0] != _VERSION:
        raise TokenRefused("this token was made by a later release of tenten: install that release here")
    try:
        return _token(json.loads(zlib.decompressobj().decompress(packed[1:], _CONTENT_BYTES_MAX)))
    except (zlib.error, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise TokenRefused("this token was not made by tenten: ask headquarters for another one") from error


def check_expiry(token: Token, now: datetime) -> None:
    """Raises: `TokenRefused` if the token has expired."""
    if now >= token.expires_at:
        expired_at = token.expires_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        raise TokenRefused(
            f"this token expired at {expired_at}: ask headquarters for a new one "
            f"(`tenten channel enroll {token.channel_id}`)"
        )


def _token(content: Mapping[str, Any]) -> Token:
    """Raises: `ValueError`, `KeyError`, `TypeError`, `OverflowError` for a content that no token of ours has."""
    registry = content["schema_registry_url"]
    token = Token(
        channel_id=_ID.validate_python(content["channel_id"], strict=True),
        secret=_bytes(content["secret"]),
        headquarters_public_key=_bytes(content["headquarters_public_key"]),
        expires_at=_aware(content["expires_at"]),
        kafka=_connection(content["kafka"]),
        has_password=bool(content["has_password"]),
        prefix=_PREFIX.validate_python(content["prefix"], strict=True),
        partitions=_PARTITIONS.validate_python(content["partitions"], strict=True),
        schema_registry_url=None if registry is None else _ADDRESS.validate_python(registry, strict=True),
    )
    if len(token.secret) != SECRET_BYTES or (token.has_password and "sasl.username" not in token.kafka):
        raise ValueError("incomplete")
    record_key(new_key_pair().private_key, token.headquarters_public_key)  # whether it is a key with which that works
    return token


_ID: Final[TypeAdapter[str]] = TypeAdapter(Id)
_PREFIX: Final[TypeAdapter[str]] = TypeAdapter(Prefix)
_ADDRESS: Final[TypeAdapter[str]] = TypeAdapter(WebAddress)
_PARTITIONS: Final[TypeAdapter[int | None]] = TypeAdapter(int | None)


def _aware(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("no time zone")
    return at.astimezone(UTC)


def _connection(properties: Any) -> dict[str, str]:
    """Only what leads to Kafka: any other property could make the client do more than connect."""
    if not isinstance(properties, Mapping):
        raise TypeError("not a table")
    others = set(properties).difference(CONNECTION_PROPERTIES, {"sasl.username"})
    if others or not all(isinstance(value, str) for value in properties.values()):
        raise ValueError("a property that no token has")
    for value in properties.values():
        value.encode()
    return dict(properties)


def _checksum(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:_CHECKSUM_BYTES]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Raises: `TokenRefused` for a text that is not base64url."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenRefused(_CUT_OFF) from error
