"""Who has written a record, and whether the channel that it names has: the rule for all that channels write.

A record is signed by the owner of the key that its header `kid` names, if its header `mac` is the code of topic, key
and body with that key. Nothing else says who wrote it: the channel that a record names is only a claim.
"""

import hmac
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from confluent_kafka import Message

from tenten.consumers.headquarters.known_keys import KnownKeys
from tenten.identity.keys import RecordCodes
from tenten.identity.signing import KID, MAC

Mode = Literal["off", "warn", "require"]
"""The setting `authentication`."""

SignerOf = Callable[[Message], str | None]
"""The channel that has signed a record of one topic; None if no valid key has."""


def signer_of(keys: KnownKeys, logical_topic: str) -> SignerOf:
    """The signers of the records of this topic (its name without prefix), with these keys."""
    codes_of = cache(lambda key_id: _channel_and_codes(keys, logical_topic, key_id))

    def signer(message: Message) -> str | None:
        headers: Any = message.headers()
        key_id = mac = None
        for name, value in headers or ():
            if name == KID:
                key_id = value
            elif name == MAC:
                mac = value
        found = codes_of(key_id)
        if found is None or mac is None:
            return None
        channel, codes = found
        expected = codes.mac(message.key() or b"", message.value() or b"")
        return channel if hmac.compare_digest(expected, mac) else None

    return signer


def is_believed(mode: Mode, claimed: str | None, signer: str | None, keys: KnownKeys) -> bool:
    """Whether a record with this signer was written by the channel that it names; None if it names none."""
    if mode == "off":
        return True
    if signer is not None:
        return claimed is None or claimed == signer
    return mode != "require" and claimed not in keys.must_sign


def _channel_and_codes(keys: KnownKeys, logical_topic: str, key_id: bytes | None) -> tuple[str, RecordCodes] | None:
    """The channel with this valid key, and the codes of its records; None for any other key."""
    channel = None if key_id is None else keys.channel_by_kid.get(key_id)
    return None if key_id is None or channel is None else (channel, keys.codes(key_id, logical_topic))
