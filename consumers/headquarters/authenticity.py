"""Whether the records of a batch were written by the channels that they name, without I/O."""

import hmac
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl
from confluent_kafka import Message
from structlog import get_logger

from tenten.avro.batches import DecodedBatch, UnreadableRow
from tenten.consumers.headquarters.known_keys import KnownKeys
from tenten.consumers.headquarters.record_writers import Mode, is_believed, signer_of
from tenten.identity.signing import CUSTOMER_EVENT_MAC, KID
from tenten.schemas.messages import ROW
from tenten.schemas.topics import ASYNC_CUSTOMERS, Topic

log = get_logger(__name__)

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
            signers = [*map(signer_of(keys, self.topic.name), messages)]
        return CheckedBatch(self, keys, signers, stored)

    def believes(self, claimed: str | None, signer: str | None, keys: KnownKeys) -> bool:
        """Whether a record with this signer was written by the channel that it names; None if it names none."""
        if not is_believed(self.mode, claimed, signer, keys):
            return False
        if self.mode == "off" or signer is not None or claimed is None:
            return True
        if claimed not in self._warned and len(self._warned) < _WARNED_MAX:
            self._warned.add(claimed)
            log.warning("unsigned_records_accepted", channel=claimed, topic=self.topic.name)
        return True


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
