"""What a store proves with the secret of its token, and what is derived from that secret.

Headquarters stores `verifier` and `token_id` only: neither the secret nor the password at Kafka follows from them.
"""

import base64
import hashlib
import hmac
import struct
from typing import Final

from tenten.identity.keys import hkdf_sha256

SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 16
"""A nonce is written as twice as many hexadecimal digits."""
_TOKEN_ID_DIGITS: Final = 16


def verifier(secret: bytes) -> bytes:
    """The key of the proofs that are made with a token's secret. 32 bytes."""
    return _derived(secret, b"tenten join verifier")


def token_id(secret: bytes) -> str:
    """The name of a token, which may be shown. 16 hexadecimal digits."""
    return hashlib.sha256(b"tenten token" + verifier(secret)).hexdigest()[:_TOKEN_ID_DIGITS]


def kafka_password(secret: bytes) -> str:
    """The password at Kafka of the store that joins with this secret. 43 characters of base64url."""
    return base64.urlsafe_b64encode(_derived(secret, b"tenten kafka password")).rstrip(b"=").decode()


def request_mac(verifier: bytes, channel_id: str, public_key: bytes, nonce: str, host: str) -> bytes:
    """The proof in a request to join: its writer has the secret, and nothing of the request was changed. 32 bytes."""
    return _mac(verifier, b"tenten join request", channel_id.encode(), public_key, nonce.encode(), host.encode())


def answer_mac(shared_key: bytes, channel_id: str, nonce: str, outcome: str, text: str) -> bytes:
    """The proof in headquarters' answer to a request. 32 bytes.

    `shared_key` is the one that headquarters and the store derive from their key pairs (`record_key`).
    """
    return _mac(shared_key, b"tenten join answer", channel_id.encode(), nonce.encode(), outcome.encode(), text.encode())


def _mac(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 over the parts, each with its length before it."""
    message = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return hmac.digest(key, message, hashlib.sha256)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hkdf_sha256(secret, salt=b"", info=purpose, length=32)
