"""The headers by which a record proves its writer, and the signer that adds them."""

from functools import cache
from typing import Final, Self

from tenten.identity.keys import KeyPair, RecordCodes, kid, record_key
from tenten.identity.store_identity import StoreIdentity

KID: Final = "kid"
"""Header: the id of the key of the record's writer, as text."""

MAC: Final = "mac"
"""Header: the message authentication code of the record, 32 bytes."""

CUSTOMER_EVENT_MAC: Final = "customer-event-mac"
"""Header of a transaction: the code of the customer event inside it, as that would be sent to `async-customers`."""

SigningHeaders = list[tuple[str, str | bytes | None]]


class RecordSigner:
    """Adds the headers of one writer."""

    def __init__(self, key_id: str, key: bytes) -> None:
        """`key` is the key of the records between the writer and headquarters."""
        self.kid = key_id
        self._codes = cache(lambda logical_topic: RecordCodes(key, logical_topic))

    @classmethod
    def of_store(cls, identity: StoreIdentity) -> Self:
        """The signer of a store. Raises: `ValueError` for keys that are not valid."""
        return cls(identity.kid, record_key(identity.private_key, identity.headquarters_public_key))

    @classmethod
    def of_headquarters(cls, pair: KeyPair) -> Self:
        """The signer of headquarters, which alone has the key of its own records."""
        return cls(kid(pair.public_key), record_key(pair.private_key, pair.public_key))

    def headers(self, logical_topic: str, record_key: bytes, value: bytes) -> SigningHeaders:
        """The headers of a record: the framed value on the topic of this name, without prefix."""
        return [(KID, self.kid), (MAC, self.mac(logical_topic, record_key, value))]

    def mac(self, logical_topic: str, record_key: bytes, value: bytes) -> bytes:
        """The code of a record alone."""
        return self._codes(logical_topic).mac(record_key, value)
