"""Whether the records of a batch were written by the channels that they name, without I/O.

A record is signed by the owner of the key that its header `kid` names, if its header `mac` is the code of topic, key
and body with that key. Nothing else says who wrote it: the channel that a record names is only a claim.
"""

import hmac
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final, Literal

import polars as pl
from confluent_kafka import Message
from structlog import get_logger

from tenten.avro.batches import DecodedBatch, UnreadableRow
from tenten.consumers.headquarters.known_keys import KnownKeys
from tenten.identity.keys import RecordCodes
from tenten.identity.signing import CUSTOMER_EVENT_MAC, KID, MAC
from tenten.schemas.messages import ROW
from tenten.schemas.topics import ASYNC_CUSTOMERS, Topic

log = get_logger(__name__)

Mode = Literal["off", "warn", "require"]
"""The setting `authentication`."""

Signers = Sequence[str | None]
"""By row of a batch: the channel that has signed the record; None if no valid key has."""

UNANSWERED: Final = frozenset({"not_authentic", "suspended"})
"""Reasons of dead letters that are never answered: the channel did not write them, or will send them again."""

_WARNED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticity:
    """Checks the records of one topic. Any thread may use it."""

    mode: Mode
    topic: Topic
    _warned: set[str] = field(init=False, default_factory=set)
    """The channels that this process has warned about."""

    def check(
        self, messages: Sequence[Message], keys: KnownKeys, stored: Container[int] = frozenset()
    ) -> "CheckedBatch":
        """Check who has signed each record of a batch. `stored`: see `CheckedBatch`."""
        if self.mode == "off" or not (keys.must_sign or self.mode == "require"):
            signers: Signers = [None] * len(messages)
        else:
            codes_of = cache(partial(_channel_and_codes, keys, self.topic.name))
            signers = [_signer(message, codes_of) for message in messages]
        return CheckedBatch(self, keys, signers, stored)

    def believes(self, claimed: str | None, signer: str | None, keys: KnownKeys) -> bool:
        """Whether a record with this signer was written by the channel that it names; None if it names none."""
        if self.mode == "off":
            return True
        if signer is not None:
            return claimed is None or claimed == signer
        if self.mode == "require" or claimed in keys.must_sign:
            return False
        if claimed is not None and claimed not in self._warned and len(self._warned) < _WARNED_MAX:
            self._warned.add(claimed)
            log.warning("unsigned_records_accepted", channel=claimed, topic=self.topic.name)
        return True


def _channel_and_codes(keys: KnownKeys, logical_topic: str, key_id: bytes | None) -> tuple[str, RecordCodes] | None:
    """The channel with this valid key, and the codes of its records; None for any other key."""
    channel = None if key_id is None else keys.channel_by_kid.get(key_id)
    return None if key_id is None or channel is None else (channel, keys.codes(key_id, logical_topic))


def _signer(message: Message, codes_of: Callable[[bytes | None], tuple[str, RecordCodes] | None]) -> str | None:
    """The channel that has signed a record; None if no valid key has."""
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


def has_event_mac(headers: Mapping[str, bytes | None], customer_id: bytes, event: bytes, keys: KnownKeys) -> bool:
    """Whether the headers of a transaction prove who wrote the customer event inside, so that it can be forwarded."""
    key_id, mac = headers.get(KID), headers.get(CUSTOMER_EVENT_MAC)
    if key_id is None or mac is None or key_id not in keys.channel_by_kid:
        return False
    return hmac.compare_digest(keys.codes(key_id, ASYNC_CUSTOMERS.name).mac(customer_id, event), mac)


class CheckedBatch:
    """The signers of a batch, and which of its records are refused."""

    def __init__(self, check: Authenticity, keys: KnownKeys, signers: Signers, stored: Container[int]) -> None:
        """`stored`: the rows that an earlier SQL transaction has accepted; they are not refused any more."""
        self._check = check
        self._keys = keys
        self.signers = signers
        self._stored = stored
        self._refusals: dict[tuple[str | None, str | None], Callable[[int], UnreadableRow] | None] = {}
        """By the channel that a record names, and the one that has signed it."""

    def refusal(self, row: int, claimed: str | None) -> UnreadableRow | None:
        """The dead letter that becomes of a record that names this channel; None if it is accepted."""
        if row in self._stored:
            return None
        refuse = self._refuses(claimed, self.signers[row])
        return None if refuse is None else refuse(row)

    def without_refused(self, decoded: DecodedBatch, origin: Callable[[int], str | None]) -> DecodedBatch:
        """The batch with refused records as unreadable ones.

        `origin` tells the channel that an unreadable record names, by row; None if that cannot be told.
        """
        unreadable = tuple(self.refusal(bad.row, origin(bad.row)) or bad for bad in decoded.unreadable)
        rows, claimed = decoded.frame[ROW].to_list(), decoded.frame["channel_id"].to_list()
        pairs = set(zip(claimed, map(self.signers.__getitem__, rows), strict=True))
        refused: list[UnreadableRow] = []
        if any(self._refuses(*pair) for pair in pairs):
            refused = [bad for bad in map(self.refusal, rows, claimed) if bad is not None]
        return DecodedBatch(
            frame=decoded.frame.filter(~pl.col(ROW).is_in([bad.row for bad in refused])) if refused else decoded.frame,
            unreadable=tuple(sorted((*unreadable, *refused), key=lambda bad: bad.row)),
        )

    def _refuses(self, claimed: str | None, signer: str | None) -> Callable[[int], UnreadableRow] | None:
        """Makes the dead letter of a row that names this channel, and that this one has signed; None to accept it."""
        pair = claimed, signer
        if pair not in self._refusals:
            self._refusals[pair] = None
            if not self._check.believes(claimed, signer, self._keys):
                self._refusals[pair] = _not_authentic
            elif not self._keys.suspended.isdisjoint(pair):
                self._refusals[pair] = _suspended
        return self._refusals[pair]


def _not_authentic(row: int) -> UnreadableRow:
    text = "is not signed with the valid key of the channel that it names"
    return UnreadableRow(row=row, reason="not_authentic", text=text)


def _suspended(row: int) -> UnreadableRow:
    return UnreadableRow(row=row, reason="suspended", text="is of a channel that headquarters has suspended")
