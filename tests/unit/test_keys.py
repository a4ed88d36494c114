"""Keys and the code of a record: published test vectors, and what two sides derive."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.identity.keys import (
    KeyPair,
    RecordCodes,
    hkdf_sha256,
    kid,
    new_key_pair,
    public_key_of,
    record_key,
    record_mac,
    shared_secret,
)
from tests.examples import examples

ALICE = KeyPair(
    bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
    bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
)
BOB = KeyPair(
    bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
    bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
)
SECRET = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
"""Source of the two key pairs and their secret: RFC 7748, section 6.1."""


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC as RFC 2104 defines it, for keys of at most 64 bytes."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def test_x25519_has_the_published_results() -> None:
    """RFC 7748, section 6.1: public keys and the shared secret."""
    assert public_key_of(ALICE.private_key) == ALICE.public_key
    assert public_key_of(BOB.private_key) == BOB.public_key
    assert shared_secret(ALICE.private_key, BOB.public_key) == SECRET
    assert shared_secret(BOB.private_key, ALICE.public_key) == SECRET


def test_hkdf_has_the_published_result() -> None:
    """RFC 5869, test case 1."""
    secret, salt = bytes.fromhex("0b" * 22), bytes.fromhex("000102030405060708090a0b0c")
    derived = hkdf_sha256(secret, salt=salt, info=bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), length=42)
    assert derived.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_code_of_a_record_is_the_hmac_of_its_parts_with_their_lengths() -> None:
    """The HMAC of this file has the result of RFC 4231, test case 1; that of a record is the same function."""
    assert hmac_sha256(bytes.fromhex("0b" * 20), b"Hi There").hex() == (
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )
    message = b"\0\0\0\x05topic\0\0\0\x03key\0\0\0\x04body"
    assert record_mac(SECRET, "topic", b"key", b"body") == hmac_sha256(SECRET, message)


@examples(100)
@given(st.text(max_size=20), st.binary(max_size=70), st.binary(max_size=300))
def test_codes_of_a_topic_are_those_of_each_record(topic: str, key: bytes, body: bytes) -> None:
    """The prepared code of a topic and the plain one are equal."""
    codes = RecordCodes(SECRET, topic)
    assert [codes.mac(key, body) for _ in range(2)] == [record_mac(SECRET, topic, key, body)] * 2


def test_key_of_records_never_changes() -> None:
    """The same keys give the same key of records in every release: a changed one would refuse every store."""
    assert (
        record_key(ALICE.private_key, BOB.public_key).hex()
        == "d9855b635c24b9ef6c7e2b6aaca7098d6f9dc221cb90480cf2941bfad3b00a77"
    )
    assert kid(ALICE.public_key) == hashlib.sha256(ALICE.public_key).hexdigest()[:16]


def test_both_sides_derive_the_same_key_and_nobody_else_does() -> None:
    """Headquarters and a store agree; another store has another key."""
    headquarters, store, other = new_key_pair(), new_key_pair(), new_key_pair()
    key = record_key(store.private_key, headquarters.public_key)
    assert record_key(headquarters.private_key, store.public_key) == key
    assert record_key(other.private_key, headquarters.public_key) != key
    assert record_key(other.private_key, store.public_key) != key
    assert len({store.public_key, other.public_key, headquarters.public_key}) == 3


PARTS = st.tuples(st.text(max_size=8), st.binary(max_size=8), st.binary(max_size=8))


@examples(200)
@given(PARTS, PARTS)
def test_different_records_have_different_codes(
    record: tuple[str, bytes, bytes], other: tuple[str, bytes, bytes]
) -> None:
    """Topic, key and value are all part of it, and no part can pass into another."""
    assert (record_mac(SECRET, *record) == record_mac(SECRET, *other)) == (record == other)


@pytest.mark.parametrize(
    ("public_key", "message"),
    [(bytes(32), "shared key"), ((1).to_bytes(32, "little"), "shared key"), (bytes(31), "32 bytes"), (b"", "32 bytes")],
)
def test_key_that_gives_a_known_secret_is_refused(public_key: bytes, message: str) -> None:
    """A public key of low order gives everybody the same secret; others have the wrong length."""
    with pytest.raises(ValueError, match=message):
        record_key(ALICE.private_key, public_key)


def test_private_key_is_not_shown() -> None:
    """A key pair in a message or a traceback has its id only."""
    assert ALICE.private_key.hex() not in repr(ALICE)
    assert repr(ALICE.private_key) not in repr(ALICE)
