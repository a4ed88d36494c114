"""Which records are believed, decided without a broker; and how dead letters are counted for each channel."""

from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tenten.consumers.headquarters.authenticity import Authenticity
from tenten.consumers.headquarters.channel_streaks import ChannelStreaks
from tenten.consumers.headquarters.known_keys import DerivedKeys, KnownKeys
from tenten.consumers.headquarters.record_writers import Mode
from tenten.identity.keys import KeyPair, kid, new_key_pair, record_key
from tenten.identity.signing import RecordSigner
from tenten.schemas.topics import ASYNC_CUSTOMERS
from tests.examples import examples

HEADQUARTERS, HOUSTON, DALLAS, FORMER = (new_key_pair() for _ in range(4))
FRAMING = b"\xc3\x01" + bytes(8)


def known_keys(*, suspended: frozenset[str] = frozenset()) -> KnownKeys:
    """Houston and dallas have keys, seattle had one, and boston never had one."""
    derived = DerivedKeys(HEADQUARTERS)
    pairs = {"headquarters": HEADQUARTERS, "houston": HOUSTON, "dallas": DALLAS}
    ids = {kid(pair.public_key).encode(): name for name, pair in pairs.items()}
    derived.public_keys |= {kid(pair.public_key).encode(): pair.public_key for pair in pairs.values()}
    must_sign = frozenset({*pairs, "seattle"})
    return KnownKeys(channel_by_kid=ids, must_sign=must_sign, suspended=suspended, derived=derived)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record with its signature."""

    key: bytes
    body: bytes
    key_id: bytes | None = None
    mac: bytes | None = None
    framing: bytes = FRAMING

    def message(self) -> Message:
        """The record as a consumer delivers it."""
        headers = [("id", b"x"), ("kid", self.key_id), ("mac", self.mac)]
        return Message(
            topic="async-customers",
            partition=0,
            offset=0,
            key=self.key,
            value=self.framing + self.body,
            headers=[(name, value) for name, value in headers if value is not None],
            error=None,
            timestamp=(1, 0),
            latency=0.0,
            leader_epoch=0,
        )


def signed(pair: KeyPair, key: bytes, body: bytes, topic: str = ASYNC_CUSTOMERS.name) -> Record:
    """A record that the owner of this pair has signed."""
    signer = RecordSigner(kid(pair.public_key), record_key(pair.private_key, HEADQUARTERS.public_key))
    mac = signer.mac(topic, key, FRAMING + body)
    return Record(key=key, body=body, key_id=signer.kid.encode(), mac=mac)


def signer_of(record: Record, mode: Mode = "require") -> str | None:
    """The channel that has signed a record."""
    return Authenticity(mode=mode, topic=ASYNC_CUSTOMERS).check([record.message()], known_keys()).signers[0]


PARTS = st.binary(max_size=40)


@examples(60)
@given(PARTS, PARTS)
def test_record_has_the_signer_whose_key_it_names(key: bytes, body: bytes) -> None:
    """Whatever its key and its content are. Behind another framing the same bytes may say something else."""
    assert signer_of(signed(HOUSTON, key, body)) == "houston"
    assert signer_of(signed(DALLAS, key, body)) == "dallas"
    assert signer_of(replace(signed(HOUSTON, key, body), framing=b"\0\0\0\0\1")) is None
    assert signer_of(signed(HEADQUARTERS, key, body)) == "headquarters"


CHANGES = st.one_of(
    st.builds(lambda value: {"key": value}, PARTS),
    st.builds(lambda value: {"body": value}, PARTS),
    st.builds(lambda value: {"mac": value}, st.none() | st.binary(max_size=33)),
    st.builds(
        lambda value: {"key_id": value},
        st.none() | st.binary(max_size=16) | st.just(kid(DALLAS.public_key).encode()),
    ),
)


@examples(200)
@given(PARTS, PARTS, CHANGES)
def test_changed_record_has_no_signer(key: bytes, body: bytes, change: dict[str, bytes | None]) -> None:
    """Another key, content, code or name of a key: nobody has signed that."""
    record = signed(HOUSTON, key, body)
    changed = replace(record, **change)  # type: ignore[arg-type]  # the types of the fields follow from their names
    assert signer_of(changed) == ("houston" if changed == record else None)


def test_record_of_another_topic_or_of_a_key_that_is_not_valid_has_no_signer() -> None:
    """A transaction is not an event; a revoked key, and one that headquarters never had, sign for nobody."""
    assert signer_of(signed(HOUSTON, b"key", b"body", topic="retail-transactions")) is None
    assert signer_of(signed(FORMER, b"key", b"body")) is None


@pytest.mark.parametrize(
    ("mode", "claimed", "signer", "reason"),
    [
        ("require", "houston", "houston", None),
        ("require", "houston", "dallas", "not_authentic"),
        ("require", "houston", None, "not_authentic"),
        ("require", "boston", None, "not_authentic"),
        ("require", "headquarters", None, "not_authentic"),
        ("require", "headquarters", "houston", "not_authentic"),
        ("require", "headquarters", "headquarters", None),
        ("require", None, "houston", None),
        ("require", None, None, "not_authentic"),
        ("warn", "houston", "houston", None),
        ("warn", "houston", None, "not_authentic"),
        ("warn", "boston", None, None),
        ("warn", "boston", "houston", "not_authentic"),
        ("warn", "seattle", None, "not_authentic"),
        ("warn", "headquarters", None, "not_authentic"),
        ("warn", None, None, None),
        ("off", "houston", None, None),
        ("off", "headquarters", None, None),
        ("require", "tampa", "tampa", "suspended"),
        ("warn", "tampa", None, "suspended"),
        ("off", "tampa", None, "suspended"),
        ("require", None, "tampa", "suspended"),
        ("require", "tampa", "houston", "not_authentic"),
    ],
)
def test_claim_of_a_record_is_believed_as_the_setting_says(
    mode: Mode, claimed: str | None, signer: str | None, reason: str | None
) -> None:
    """Boston never had a key, seattle had one, tampa is suspended; None names no channel, or is no signer."""
    check = Authenticity(mode=mode, topic=ASYNC_CUSTOMERS)
    batch = check.check([], known_keys(suspended=frozenset({"tampa"})))
    batch.signers = [signer]
    refusal = batch.refusal(0, claimed)
    assert (None if refusal is None else refusal.reason) == reason


def test_channel_whose_unsigned_records_are_accepted_is_named_once() -> None:
    """In the log of the process, with `warn`; not with `off`."""
    with capture_logs() as logged:
        for mode in ("warn", "off"):
            check = Authenticity(mode=mode, topic=ASYNC_CUSTOMERS)
            for _ in range(2):
                batch = check.check([Record(key=b"x", body=b"x").message()], known_keys())
                assert batch.refusal(0, "boston") is None
    assert [(event["event"], event["channel"]) for event in logged] == [("unsigned_records_accepted", "boston")]


def test_record_that_was_stored_before_is_not_refused() -> None:
    """Its outputs may be missing on the topics."""
    message = Record(key=str(uuid4()).encode(), body=b"x").message()
    check = Authenticity(mode="require", topic=ASYNC_CUSTOMERS)
    assert check.check([message], known_keys()).refusal(0, "houston") is not None
    assert check.check([message], known_keys(), stored={0}).refusal(0, "houston") is None


def test_dead_letters_in_a_row_are_counted_for_each_channel() -> None:
    """Across batches; a good record of the channel ends its streak, and those of others do not."""
    first = ChannelStreaks().after([0, 1, 3], ["houston", "houston", "dallas", "houston", "dallas"])
    assert (dict(first.at_end), dict(first.longest)) == ({"houston": 3}, {"houston": 3})
    second = first.after([0, 2, 3], ["houston", "dallas", "dallas", "dallas"])
    assert (dict(second.at_end), second.longer_than(2)) == ({"houston": 4, "dallas": 2}, {"houston": 4})
    third = second.after([], ["houston"])
    assert dict(third.at_end) == {"dallas": 2}
    assert third.after([], ["dallas"]).at_end == {}


def test_unsigned_dead_letters_and_those_of_headquarters_count_for_nobody() -> None:
    """However many there are."""
    streaks = ChannelStreaks().after(range(4), [None, None, "headquarters", "headquarters"])
    assert streaks.at_end == streaks.longer_than(0) == {}
