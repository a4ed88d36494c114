"""Tokens and proofs of joining, as plain values."""

import base64
import hashlib
import json
import os
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenten.identity.join_proof import answer_mac, kafka_password, request_mac, token_id, verifier
from tenten.identity.token import Token, check_expiry, decode_token, encode_token
from tenten.runtime.errors import TokenRefused

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)

TOKEN = Token(
    channel_id="dallas",
    secret=bytes(range(32)),
    headquarters_public_key=bytes(range(32)),
    expires_at=NOW + timedelta(days=1),
    kafka={
        "bootstrap.servers": "kafka.example.com:9094",
        "sasl.username": "dallas",
        "ssl.ca.pem": "-----BEGIN\nCERTIFICATE-----\n",
    },
    has_password=True,
    prefix="shop-",
    partitions=3,
    schema_registry_url="http://registry.example.com",
)


def test_token_is_read_as_it_was_made_also_over_several_lines() -> None:
    """All fields survive; blanks and line ends of a mail do no harm."""
    text = encode_token(TOKEN)
    assert decode_token(text) == TOKEN
    assert decode_token(f"  {text[:40]}\n{text[40:]}\r\n") == TOKEN


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other", "not_ascii", "later_release"])
def test_damaged_token_is_refused_with_one_sentence(damage: str) -> None:
    """Any text that is not a whole token of this release."""
    text = encode_token(TOKEN)
    damaged = {
        "cut": text[:-5],
        "changed": text[:50] + ("A" if text[50] != "A" else "B") + text[51:],
        "empty": "",
        "other": "tenten.toml",
        "not_ascii": text[:-1] + "é",
        "later_release": later_release(text),
    }
    with pytest.raises(TokenRefused, match="later release" if damage == "later_release" else "not a complete token"):
        decode_token(damaged[damage])


def later_release(text: str) -> str:
    """The same token with another version, and the checksum of that."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return with_checksum(bytes([2]) + data[9:])


def with_checksum(packed: bytes) -> str:
    """A version and what follows, with the checksum of both: anybody can compute it."""
    return base64.urlsafe_b64encode(packed[:1] + hashlib.sha256(packed).digest()[:8] + packed[1:]).rstrip(b"=").decode()


def content_of(text: str) -> dict[str, Any]:
    """The content of a token."""
    content: dict[str, Any] = json.loads(zlib.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[9:]))
    return content


@pytest.mark.parametrize(
    "changed",
    [
        {"expires_at": "2026-07-02T12:00:00"},
        {"expires_at": "0001-01-01T00:00:00+23:59"},
        {"expires_at": 1},
        {"kafka": {"sasl.username": "dallas", "plugin.library.paths": "/tmp/lib.so"}},
        {"kafka": {"sasl.username": "dallas", "bootstrap.servers": 1}},
        {"kafka": {"sasl.username": "dallas", "bootstrap.servers": "\ud800"}},
        {"kafka": {"bootstrap.servers": "kafka:9092"}},
        {"kafka": []},
        {"channel_id": "../../dallas"},
        {"channel_id": 5},
        {"secret": "AAAA"},
        {"headquarters_public_key": "A" * 43},
        {"headquarters_public_key": "AAAA"},
        {"partitions": "3"},
        {"schema_registry_url": "file:///etc/passwd"},
        {"prefix": "a b"},
    ],
)
def test_content_that_no_token_of_ours_has_is_refused_with_one_sentence(changed: dict[str, Any]) -> None:
    """Also with a valid checksum: above all properties of Kafka's client that do more than connect."""
    content = json.dumps({**content_of(encode_token(TOKEN)), **changed}).encode()
    with pytest.raises(TokenRefused, match="not made by tenten"):
        decode_token(with_checksum(bytes([1]) + zlib.compress(content)))


@pytest.mark.parametrize(
    "body", [b"", b"garbage", zlib.compress(b"[" * 60_000), zlib.compress(b"[]"), zlib.compress(b"1")]
)
def test_garbage_with_a_valid_checksum_is_refused_with_one_sentence(body: bytes) -> None:
    """Whatever is behind the checksum."""
    with pytest.raises(TokenRefused, match="not made by tenten"):
        decode_token(with_checksum(bytes([1]) + body))


def test_token_expires() -> None:
    """At its time, with a sentence that names the command for a new one."""
    check_expiry(TOKEN, TOKEN.expires_at - timedelta(seconds=1))
    with pytest.raises(TokenRefused, match=r"expired at 2026-07-02 12:00 UTC.*tenten channel enroll dallas"):
        check_expiry(TOKEN, TOKEN.expires_at)


def test_secret_is_shown_nowhere() -> None:
    """Neither the secret nor Kafka's properties are in the text of the value."""
    assert "secret" not in repr(TOKEN)
    assert "CERTIFICATE" not in repr(TOKEN)


def test_derived_values_differ_and_do_not_reveal_the_secret() -> None:
    """What headquarters stores is not the password at Kafka; both depend on every bit of the secret."""
    secret = os.urandom(32)
    other = bytes([secret[0] ^ 1]) + secret[1:]
    derived = [verifier(secret), kafka_password(secret).encode(), token_id(secret).encode()]
    of_other = [verifier(other), kafka_password(other).encode(), token_id(other).encode()]
    assert len({*derived, *of_other}) == 6
    assert all(secret not in value for value in derived)
    assert len(kafka_password(secret)) == 43


@pytest.mark.parametrize("name", ["channel_id", "public_key", "nonce", "host"])
def test_proof_of_a_request_covers_every_field(name: str) -> None:
    """Another value of any field has another proof; so has the same text moved from one field to the next."""
    fields: dict[str, Any] = {"channel_id": "dallas", "public_key": bytes(32), "nonce": "00" * 16, "host": "till"}
    changed = {**fields, name: b"\1" * 32 if name == "public_key" else fields[name] + "x"}
    assert request_mac(bytes(32), **fields) != request_mac(bytes(32), **changed)
    assert request_mac(bytes(32), **fields) != request_mac(b"\1" * 32, **fields)
    assert answer_mac(bytes(32), "a", "b", "cd", "e") != answer_mac(bytes(32), "a", "b", "c", "de")
