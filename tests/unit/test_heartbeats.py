"""Which heartbeats count, and how long a refused one is remembered; decided without a broker."""

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.known_keys import DerivedKeys, KnownKeys
from tenten.consumers.headquarters.record_writers import Mode
from tenten.identity.keys import KeyPair, kid, new_key_pair, record_key
from tenten.identity.signing import RecordSigner
from tenten.status.heartbeats import Heartbeats, Received
from tests.faults.avro import encode

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HEADQUARTERS, HOUSTON, DALLAS, FORMER = (new_key_pair() for _ in range(4))


def known_keys() -> KnownKeys:
    """Houston and dallas have keys, boston never had one."""
    derived = DerivedKeys(HEADQUARTERS)
    pairs = {"headquarters": HEADQUARTERS, "houston": HOUSTON, "dallas": DALLAS}
    derived.public_keys |= {kid(pair.public_key).encode(): pair.public_key for pair in pairs.values()}
    return KnownKeys(
        channel_by_kid={kid(pair.public_key).encode(): name for name, pair in pairs.items()},
        must_sign=frozenset(pairs),
        derived=derived,
    )


def beat(name: str, signer: KeyPair | None, minute: int, *, key: str | None = None) -> Message:
    """A heartbeat in this channel's name, received so many minutes after noon; its customers are the same number."""
    content = {"channel_id": name, "release": "1", "sent_at": NOON, "customers": minute}
    value, record = encode("Heartbeat", content), (key or name).encode()
    headers: list[tuple[str, str | bytes | None]] = []
    if signer is not None:
        shared = record_key(signer.private_key, HEADQUARTERS.public_key)
        headers = RecordSigner(kid(signer.public_key), shared).headers("channel-status", record, value)
    at = NOON + timedelta(minutes=minute)
    return Message(
        topic="channel-status",
        partition=0,
        offset=minute,
        key=record,
        value=value,
        headers=[(name, each.encode() if isinstance(each, str) else each) for name, each in headers],
        error=None,
        timestamp=(2, int(at.timestamp() * 1000)),
        latency=0.0,
        leader_epoch=0,
    )


def after(*messages: Message, mode: Mode = "warn", keys: KnownKeys | None = None) -> Heartbeats:
    """What is known after these records."""
    heartbeats = Heartbeats(mode=mode, is_logged=True)
    writers = WriterSchemas()
    heartbeats.take([Received(message, writers) for message in messages], keys)
    return heartbeats


def heard(heartbeats: Heartbeats) -> dict[str, int | None]:
    """By channel the minute of the heartbeat that counts."""
    return {name: found.heartbeat.customers for name, found in heartbeats.heard.items()}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("require", {"houston": 1, "dallas": 5}),
        ("warn", {"houston": 1, "dallas": 5, "boston": 6}),
        ("off", {"houston": 4, "dallas": 5, "boston": 6}),
    ],
)
def test_only_the_channel_itself_is_heard(mode: Mode, expected: dict[str, int]) -> None:
    """By the rules for events; a record under the key of another channel than it names is nobody's."""
    messages = [
        beat("houston", HOUSTON, 1),
        beat("houston", DALLAS, 2),
        beat("houston", FORMER, 3),
        beat("houston", None, 4),
        beat("dallas", DALLAS, 5),
        beat("boston", None, 6),
        beat("houston", DALLAS, 7, key="dallas"),
        beat("dallas", DALLAS, 8, key="houston"),
    ]
    # when
    with capture_logs() as logs:
        found = after(*messages, mode=mode, keys=known_keys())
    # then
    assert heard(found) == expected
    refused = {"require": {"houston": 4, "boston": 6}, "warn": {"houston": 4}, "off": {}}[mode]
    assert {name: at.at for name, at in found.refused.items()} == {
        name: NOON + timedelta(minutes=minute) for name, minute in refused.items()
    }
    assert [entry["channel"] for entry in logs if entry["event"] == "heartbeat_refused"] == list(refused)


def test_heartbeats_from_before_the_present_key_are_not_reported_as_refused() -> None:
    """Those are the channel's own; those after its first one with the key are somebody else's."""
    # given
    before = [beat("houston", None, 1), beat("houston", FORMER, 2)]
    # when, then
    assert set(after(*before, keys=known_keys()).refused) == {"houston"}
    assert after(*before, beat("houston", HOUSTON, 3), keys=known_keys()).refused == {}
    forged = [beat("houston", HOUSTON, 3), beat("houston", DALLAS, 4), beat("houston", HOUSTON, 5)]
    found = after(*before, *forged, keys=known_keys())
    assert found.refused["houston"].at == NOON + timedelta(minutes=4)
    assert found.refused["houston"].kid == kid(DALLAS.public_key)
    assert heard(found) == {"houston": 5}


def test_nothing_is_refused_where_there_are_no_keys_to_check_with() -> None:
    """As where no database of headquarters is configured."""
    assert heard(after(beat("houston", DALLAS, 1))) == {"houston": 1}
