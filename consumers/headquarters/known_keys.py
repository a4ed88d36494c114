"""The keys of headquarters and of its channels, in the memory of a worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, select

from tenten.identity.channel_keys import read_channel_keys
from tenten.identity.headquarters_keys import read_headquarters_keys
from tenten.identity.keys import KeyPair, RecordCodes, kid, record_key
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.tables.headquarters import channels


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKeys:
    """The valid keys, and the channels that must sign."""

    channel_by_kid: Mapping[bytes, str]
    """By the id of each valid key, as in a record's header: the channel that it belongs to, or `headquarters`."""
    must_sign: frozenset[str]
    """The channels that have or had a key, and then `headquarters` as well: their unsigned records are not believed."""
    suspended: frozenset[str] = frozenset()
    """The channels from which nothing is accepted."""
    derived: "DerivedKeys | None" = None
    """None before headquarters has a key pair."""

    def codes(self, key_id: bytes, logical_topic: str) -> RecordCodes:
        """The codes of the records that are signed with this valid key."""
        assert self.derived is not None  # a valid key is known only together with headquarters' pair
        return self.derived.codes(key_id, logical_topic)


NO_KEYS: Final = KnownKeys(channel_by_kid={}, must_sign=frozenset())


@dataclass(slots=True)
class DerivedKeys:
    """The keys of records, each derived when it is first needed: that costs a tenth of a millisecond."""

    headquarters: KeyPair = field(repr=False)
    public_keys: dict[bytes, bytes] = field(init=False, default_factory=dict)
    """By the id of the key."""
    _codes: dict[tuple[bytes, str], RecordCodes] = field(init=False, default_factory=dict)

    def codes(self, key_id: bytes, logical_topic: str) -> RecordCodes:
        """The codes for the records of this key. Any thread may call it."""
        found = self._codes.get((key_id, logical_topic))
        if found is None:
            key = record_key(self.headquarters.private_key, self.public_keys[key_id])
            found = self._codes[key_id, logical_topic] = RecordCodes(key, logical_topic)
        return found


def read_known_keys(headquarters: Connection, before: KnownKeys) -> KnownKeys:
    """The keys as the database has them now; keeps what was derived before."""
    pair = read_headquarters_keys(headquarters)
    suspended = frozenset(headquarters.scalars(_SUSPENDED))
    if pair is None:
        return replace(NO_KEYS, suspended=suspended)
    keys = read_channel_keys(headquarters)
    derived = before.derived
    if derived is None or derived.headquarters != pair:
        derived = DerivedKeys(pair)
    own_kid = kid(pair.public_key).encode()
    valid = {key.kid.encode(): key for key in keys if key.revoked_at is None}
    # Headquarters' own key comes last: whatever the table of channels has, its records stay its own.
    derived.public_keys |= {**{key_id: key.public_key for key_id, key in valid.items()}, own_kid: pair.public_key}
    have_signed = {key.channel_id for key in keys}
    return KnownKeys(
        channel_by_kid={**{key_id: key.channel_id for key_id, key in valid.items()}, own_kid: HEADQUARTERS},
        must_sign=frozenset({*have_signed, HEADQUARTERS}) if have_signed else frozenset(),
        suspended=suspended,
        derived=derived,
    )


_SUSPENDED: Final = select(channels.c.channel_id).where(channels.c.suspended_at.is_not(None))
"""The channels from which nothing is accepted."""
