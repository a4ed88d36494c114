"""A store's request to join."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A store asks to join with a token, and to be known by its public key."""

    channel_id: str
    token_id: str
    public_key: bytes
    """32 bytes, X25519."""
    nonce: str
    """32 hexadecimal digits; headquarters' answer names it."""
    host: str
    """Name of the store's machine, as the store gives it."""
    mac: bytes
    """32 bytes: proves that the writer has the token."""


def join_request_from_avro(request: Mapping[str, Any]) -> JoinRequest:
    """A request from a decoded Avro record."""
    return JoinRequest(**request)
