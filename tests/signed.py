"""Keys of a test's headquarters and stores, and records that are signed with them as other programs would do it."""

import hmac
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tenten.identity.channel_keys import add_channel_key, revoke_channel_key
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.keys import KeyPair, kid, new_key_pair, record_key
from tenten.sql.engine import open_database
from tests.faults.avro import encode
from tests.faults.journal import Operation

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Signs as the owner of a key."""

    kid: str
    key: bytes

    def mac(self, topic: str, key: bytes, value: bytes) -> bytes:
        """The code of a record."""
        parts = (topic.encode(), key, value)
        return hmac.digest(self.key, b"".join(struct.pack(">I", len(part)) + part for part in parts), "sha256")

    def headers(self, topic: str, key: bytes, value: bytes) -> Headers:
        """The headers of a signed record."""
        return (("kid", self.kid.encode()), ("mac", self.mac(topic, key, value)))

    def sign(self, operation: Operation) -> Operation:
        """The same record, signed."""
        signed = self.headers(operation.topic, operation.key or b"", operation.value or b"")
        return replace(operation, headers=(*operation.headers, *signed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of a headquarters, in its database."""

    url: str

    def headquarters(self) -> Signature:
        """The signature of headquarters itself."""
        return _signature(self._pair(), self._pair())

    def join(self, channel: str) -> Signature:
        """Give a channel a new key, as joining does."""
        pair = self.prepare()
        self.add(channel, pair)
        return self.signature(pair)

    @staticmethod
    def prepare() -> KeyPair:
        """A key pair that headquarters does not know yet."""
        return new_key_pair()

    def add(self, channel: str, pair: KeyPair) -> None:
        """Make this the key of a channel."""
        engine = open_database(self.url)
        with engine.begin() as connection:
            add_channel_key(connection, channel, pair.public_key, operator=None, source="a test", now=datetime.now(UTC))
        engine.dispose()

    def signature(self, pair: KeyPair) -> Signature:
        """Signs with this pair."""
        return _signature(pair, self._pair())

    def public_key(self) -> bytes:
        """The public key of headquarters."""
        return self._pair().public_key

    def revoke(self, channel: str) -> None:
        """Revoke the key of a channel."""
        engine = open_database(self.url)
        with engine.begin() as connection:
            assert revoke_channel_key(connection, channel, operator=None, source="a test", now=datetime.now(UTC))
        engine.dispose()

    def _pair(self) -> KeyPair:
        engine = open_database(self.url)
        with engine.begin() as connection:
            pair = ensure_headquarters_keys(connection)
        engine.dispose()
        return pair


def _signature(own: KeyPair, headquarters: KeyPair) -> Signature:
    return Signature(kid=kid(own.public_key), key=record_key(own.private_key, headquarters.public_key))


def record_of(event: dict[str, object]) -> Operation:
    """The record of a customer event, not signed."""
    event_id, customer_id = str(event["event_id"]), str(event["customer_id"])
    return Operation(
        key=customer_id.encode(),
        value=encode("CustomerEvent", event),
        headers=(("id", event_id.encode()),),
        event_id=event_id,
    )


def record_of_sale(sale: dict[str, object]) -> Operation:
    """The record of an order, a sale or an end of day, not signed."""
    headers: Headers = (("id", str(sale["transaction_id"]).encode()),)
    key = str(sale["channel_id"]).encode()
    return Operation(topic="retail-transactions", key=key, value=encode("RetailTransaction", sale), headers=headers)
