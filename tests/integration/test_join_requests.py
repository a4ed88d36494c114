"""Headquarters judges requests to join: who has the token, once, and nobody else."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, select, text

from tenten.consumers.headquarters.customers.join_reader import Alarms
from tenten.consumers.headquarters.known_keys import NO_KEYS, read_known_keys
from tenten.identity.channel_changes import By
from tenten.identity.channel_keys import add_channel_key, revoke_channel_key, valid_key
from tenten.identity.enrolment import NewToken, check_enrolment, store_token
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.join_proof import NONCE_BYTES, answer_mac, request_mac, token_id, verifier
from tenten.identity.join_requests import ANSWERS_MAX, Judged, is_plausible, judge_requests
from tenten.identity.keys import KeyPair, kid, new_key_pair, record_key
from tenten.identity.suspension import resume, suspend
from tenten.registry.apply import apply_registry
from tenten.registry.history import list_history
from tenten.registry.values import Registry, registry_of_settings
from tenten.runtime.errors import KafkaRefused, KeyNotAccepted, SettingsError, TentenError
from tenten.runtime.settings import load_settings
from tenten.schemas.messages import HEADQUARTERS, JoinRequest
from tenten.schemas.tables.headquarters import channel_keys, channel_tokens, channels, join_answers
from tenten.sql.engine import open_database
from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, SEATTLE
from tests.conftest import NewDatabase

BY = By(source="a test", operator="mary")


@dataclass
class Headquarters:
    """Its database, with the channels houston and seattle."""

    engine: Engine
    registry: Registry
    judged: Judged | None = None
    """What became of the last requests."""

    def token(
        self,
        channel_id: str = "houston",
        *,
        rotates: bool = False,
        seconds: float = 3_600,
        last: Callable[[], None] = lambda: None,
    ) -> bytes:
        """Make a token; its secret."""
        secret, expires_at = os.urandom(32), datetime.now(UTC) + timedelta(seconds=seconds)
        new = NewToken(channel_id=channel_id, secret=secret, has_password=False, expires_at=expires_at)
        store_token(self.engine, new, BY, rotates=rotates, last=last)
        return secret

    def judge(self, *requests: JoinRequest, later: float = 0.0) -> list[str]:
        """Judge these requests; the outcome of each, also verified as the store does. '' without an answer."""
        with self.engine.begin() as headquarters:
            own = ensure_headquarters_keys(headquarters)
            now = datetime.now(UTC) + timedelta(seconds=later)
            self.judged = judge_requests(headquarters, requests, own.private_key, now)
        return [self.answer(request, own) for request in requests]

    def answer(self, request: JoinRequest, own: KeyPair) -> str:
        """The outcome of a request, with a proof that its writer can check."""
        with self.engine.connect() as headquarters:
            columns = (join_answers.c.channel_id == request.channel_id, join_answers.c.nonce == request.nonce)
            row = headquarters.execute(select(join_answers).where(*columns)).one_or_none()
        if row is None:
            return ""
        shared = record_key(own.private_key, request.public_key)
        assert bytes(row.mac) == answer_mac(shared, request.channel_id, request.nonce, row.outcome, row.text)
        assert row.text or row.outcome == "joined"
        return str(row.outcome)

    def kid(self, channel_id: str = "houston") -> str | None:
        """The id of the valid key of a channel."""
        with self.engine.connect() as headquarters:
            key = valid_key(headquarters, channel_id)
        return None if key is None else key.kid

    def used(self, secret: bytes) -> tuple[bool, int]:
        """Whether a token is used up, and how often another key came with it."""
        row = select(channel_tokens.c.used_at, channel_tokens.c.refused)
        with self.engine.connect() as headquarters:
            used_at, refused = headquarters.execute(row.where(channel_tokens.c.token_id == token_id(secret))).one()
        return used_at is not None, refused

    def changes(self) -> list[tuple[str, str | None, str]]:
        """The newest changes of the registry: source, operator, setting."""
        with self.engine.connect() as headquarters:
            found = list_history(headquarters, 100)
        return [(change.source, change.operator, item["setting"]) for change in found for item in change.changed]


@pytest.fixture
def hq(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headquarters]:
    """Headquarters with two channels."""
    toml = tmp_path_factory.mktemp("settings") / "tenten.toml"
    toml.write_text(LEGAL_ENTITY + HOUSTON + SEATTLE)
    engine = open_database(new_database("headquarters"))
    registry = registry_of_settings(load_settings(toml))
    apply_registry(engine, registry, source="a test")
    yield Headquarters(engine=engine, registry=registry)
    engine.dispose()


def request(secret: bytes, public_key: bytes | None = None, channel_id: str = "houston") -> JoinRequest:
    """A request with this token, and a new key unless one is given."""
    key, nonce = public_key or new_key_pair().public_key, os.urandom(NONCE_BYTES).hex()
    return JoinRequest(
        channel_id=channel_id,
        token_id=token_id(secret),
        public_key=key,
        nonce=nonce,
        host="till-1",
        mac=request_mac(verifier(secret), channel_id, key, nonce, "till-1"),
    )


def test_store_with_the_token_joins_and_the_history_says_who_and_from_where(hq: Headquarters) -> None:
    """Its key is valid, the token used up; the same request again, and the same key again, get the same answer."""
    # given
    secret = hq.token()
    first = request(secret)
    # when
    outcomes = hq.judge(first, first) + hq.judge(request(secret, first.public_key), later=20)
    # then
    assert outcomes == ["joined"] * 3
    assert hq.kid() == kid(first.public_key)
    assert hq.used(secret) == (True, 0)
    assert hq.changes() == [
        ("store join", "mary", "channels.houston.joined"),
        ("store join", "mary", "channels.houston.key"),
        ("a test", "mary", "channels.houston.token"),
    ]
    with hq.engine.connect() as headquarters:
        newest = list_history(headquarters, 1)[0].changed[0]["after"]
        row = headquarters.execute(select(channel_tokens)).one()
    assert newest == {"token": token_id(secret), "kid": kid(first.public_key), "from": "till-1"}
    assert (row.enrolled_by, row.used_kid, row.used_from) == ("mary", kid(first.public_key), "till-1")
    assert row.enrolled_from
    assert secret not in bytes(row.verifier)


def test_request_whose_key_is_valid_already_uses_up_its_token(hq: Headquarters) -> None:
    """As after a restore: the key was taken back from what was published, and the token does not count as used."""
    secret = hq.token()
    first = request(secret)
    with hq.engine.begin() as headquarters:
        key, now = first.public_key, datetime.now(UTC)
        add_channel_key(headquarters, "houston", key, operator=None, source="published settings", now=now)
    assert hq.judge(first) == ["joined"]
    assert hq.used(secret) == (True, 0)
    assert hq.kid() == kid(first.public_key)


def test_another_key_under_a_used_token_is_refused_counted_and_changes_nothing(
    hq: Headquarters, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two machines with one token: the second is told so, and headquarters raises an alarm, at a pace that a flood does
    not change. The answer is published, so the name of the other machine is not in it.
    """
    # given
    secret, alarms = hq.token(), Alarms()
    first = request(secret)
    hq.judge(first)
    # when
    for later, outcomes in ((0, ["used", ""]), (9, ["", ""]), (11, ["used", ""]), (71, ["used", ""])):
        assert hq.judge(request(secret), request(secret), later=later) == outcomes
        assert hq.judged is not None
        assert hq.judged.has_stored == ("used" in outcomes)
        alarms.log(hq.judged.alarms, float(later))
    # then
    assert hq.used(secret) == (True, 3)
    assert hq.kid() == kid(first.public_key)
    assert capsys.readouterr().out.count("join_with_another_key") == 2
    with hq.engine.connect() as headquarters:
        assert not [answer for answer in headquarters.scalars(select(join_answers.c.text)) if "till-1" in answer]


def test_token_that_is_good_for_nothing_displaces_no_answer_and_is_answered_now_and_then(hq: Headquarters) -> None:
    """However often it comes, with whatever key: the store that has joined finds its answer, and nothing is written."""
    # given
    secret = hq.token("seattle")
    first = request(secret, channel_id="seattle")
    assert hq.judge(first) == ["joined"]
    # when
    for later in range(20, 220, 20):
        hq.judge(*(request(secret, channel_id="seattle") for _ in range(3)), later=later)
        # The public key of the store is known to whoever reads `joins`.
        hq.judge(*(request(secret, first.public_key, "seattle") for _ in range(3)), later=later)
    # then
    with hq.engine.begin() as headquarters:
        own = ensure_headquarters_keys(headquarters)
        assert len(headquarters.execute(select(join_answers)).all()) <= ANSWERS_MAX
    assert hq.answer(first, own) == "joined"
    # A token that has expired
    expired = hq.token()
    assert hq.judge(request(expired), request(expired), later=7_200) == ["expired", ""]
    assert hq.judge(request(expired), later=7_205) == [""]
    assert hq.judged == Judged(unproven=0, has_stored=False, alarms=())


def test_who_has_no_token_cannot_use_one_up(hq: Headquarters) -> None:
    """The channel's name and the token's id are no secret: a request without the proof changes nothing."""
    # given
    secret = hq.token()
    foreign = request(os.urandom(32))
    # when
    forged = replace(request(secret), mac=os.urandom(32))
    of_other_channel = request(secret, channel_id="seattle")
    stolen_id = replace(foreign, token_id=token_id(secret))
    changed_key = replace(request(secret), public_key=new_key_pair().public_key)
    outcomes = hq.judge(forged, stolen_id, changed_key) + hq.judge(of_other_channel)
    # then: one answer for each channel, at this pace
    assert outcomes == ["unknown", "", "", "unknown"]
    assert (hq.used(secret), hq.kid(), hq.kid("seattle")) == ((False, 0), None, None)
    assert hq.judge(request(secret)) == ["joined"]


def test_expired_withdrawn_unknown_and_replaced(hq: Headquarters) -> None:
    """Each has its own answer, and none makes a key valid."""
    # given
    expired, withdrawn = hq.token(), hq.token("seattle")
    newest = hq.token("seattle")
    # when
    assert hq.judge(request(expired), later=7_200) == ["expired"]
    assert hq.judge(request(withdrawn, channel_id="seattle")) == ["withdrawn"]
    assert hq.judge(request(os.urandom(32))) == ["unknown"]
    assert hq.judge(request(os.urandom(32), channel_id="unheard-of")) == [""]
    assert (hq.kid(), hq.kid("seattle")) == (None, None)
    joined = request(newest, channel_id="seattle")
    assert hq.judge(joined) == ["joined"]
    with hq.engine.begin() as headquarters:
        revoke_channel_key(headquarters, "seattle", operator=None, source="a test", now=datetime.now(UTC))
    # then: the same key never becomes valid again
    assert hq.judge(request(newest, joined.public_key, "seattle"), later=20) == ["replaced"]
    assert hq.kid("seattle") is None


def test_rotation_keeps_the_old_key_until_the_new_one_joins(hq: Headquarters) -> None:
    """A token for another key; enrolling and rotating each name the other where they are refused."""
    # given
    with pytest.raises(TentenError, match="has not joined yet: `tenten channel enroll houston`"):
        check_enrolment(hq.engine, "houston", rotates=True)
    first = request(hq.token())
    hq.judge(first)
    with pytest.raises(TentenError, match="has joined already: `tenten channel rotate-key houston`"):
        check_enrolment(hq.engine, "houston", rotates=False)
    # when
    secret = hq.token(rotates=True)
    assert hq.kid() == kid(first.public_key)
    second = request(secret)
    # then
    assert hq.judge(second) == ["joined"]
    assert hq.kid() == kid(second.public_key)
    with pytest.raises(SettingsError, match="does not have the channel boston: add"):
        check_enrolment(hq.engine, "boston", rotates=False)


def test_answers_are_few_and_an_attackers_do_not_displace_a_stores(hq: Headquarters) -> None:
    """However many requests come, a channel keeps some answers; those to proven requests stay."""
    # given
    secret = hq.token()
    first = request(secret)
    hq.judge(first)
    # when
    for attempt in range(4):
        hq.judge(*(request(os.urandom(32)) for _ in range(5)), later=20.0 * attempt)
    # then
    assert hq.judge(first) == ["joined"]
    for attempt in range(20):
        hq.judge(request(secret, first.public_key), later=100.0 + 20.0 * attempt)
    with hq.engine.connect() as headquarters:
        rows = headquarters.execute(select(join_answers.c.is_proven)).all()
    assert sorted(row.is_proven for row in rows) == [False, *[True] * (ANSWERS_MAX - 1)]
    # An attacker repeats the store's nonce: the store's answer stays.
    last = request(secret, first.public_key)
    hq.judge(last, later=600.0)
    with pytest.raises(AssertionError):  # the answer of that nonce is not for the attacker's key
        hq.judge(replace(request(os.urandom(32)), nonce=last.nonce), later=660.0)
    assert hq.judge(last, later=660.0) == ["joined"]


def test_password_at_kafka_comes_last_and_when_it_fails_nothing_is_stored(hq: Headquarters) -> None:
    """The last step of a new token runs only after every check; without it the token before stays good."""
    # given
    secret, calls = hq.token(), []

    def fail() -> None:
        calls.append("the password")
        raise KafkaRefused("no administrator")

    # when
    with pytest.raises(KafkaRefused):
        hq.token(last=fail)
    # then
    assert hq.judge(request(secret)) == ["joined"]
    with pytest.raises(TentenError, match="has joined already"):
        hq.token(last=fail)
    assert calls == ["the password"]


def test_removed_channel_loses_its_key_and_its_tokens_but_not_while_it_is_suspended(hq: Headquarters) -> None:
    """In the transaction that removes it: a channel of the same name that is added later begins without either."""
    # given
    secret = hq.token()
    hq.judge(request(secret))
    unused, before = hq.token(rotates=True), hq.kid()
    without = replace(hq.registry, channels={"seattle": hq.registry.channels["seattle"]})
    suspend(hq.engine, "houston", "the till was stolen", BY)
    with pytest.raises(SettingsError, match="it is suspended; resume it first"):
        apply_registry(hq.engine, without, source="a test", to_remove=["channels.houston"])
    assert hq.kid() == before
    resume(hq.engine, "houston", BY)
    # when
    apply_registry(hq.engine, without, source="a test", operator="tom", to_remove=["channels.houston"])
    # then
    assert hq.kid() is None
    assert hq.changes()[:2] == [("a test", "tom", "channels.houston.key"), ("a test", "tom", "channels.houston.token")]
    apply_registry(hq.engine, hq.registry, source="a test")
    with hq.engine.connect() as headquarters:
        assert headquarters.execute(select(join_answers)).all() == []
    assert hq.judge(request(unused)) == ["withdrawn"]
    assert hq.kid() is None
    assert hq.judge(request(hq.token())) == ["joined"]


@pytest.mark.parametrize(
    "changed",
    [
        {"public_key": b"short"},
        {"public_key": bytes(33)},
        {"mac": b""},
        {"nonce": "g" * 32},
        {"nonce": "0" * 31},
        {"channel_id": ""},
        {"channel_id": "x" * 65},
        {"channel_id": "a\0b"},
        {"token_id": "x" * 65},
        {"host": "x" * 256},
        {"host": "a\nb"},
    ],
)
def test_implausible_requests_are_recognised(changed: dict[str, object]) -> None:
    """Lengths and characters that no store writes."""
    good = request(os.urandom(32))
    assert is_plausible(good)
    assert not is_plausible(replace(good, **changed))  # type: ignore[arg-type]


def test_key_with_which_everybody_would_have_the_same_secret_is_not_accepted(hq: Headquarters) -> None:
    """A store's own proof does not help: with such a key anybody could write in its name."""
    secret = hq.token()
    weak = request(secret, bytes(32))
    assert is_plausible(weak)
    with hq.engine.begin() as headquarters:
        own = ensure_headquarters_keys(headquarters)
        assert judge_requests(headquarters, [weak], own.private_key, datetime.now(UTC)).unproven == 1
    assert hq.kid() is None
    assert hq.judge(request(secret)) == ["joined"]


def test_store_cannot_join_with_the_key_of_headquarters(hq: Headquarters) -> None:
    """It is in every token. The token stays unused; in a worker's memory headquarters' own key is its own anyway."""
    # given
    secret = hq.token()
    with hq.engine.begin() as headquarters:
        own = ensure_headquarters_keys(headquarters)
    stolen = request(secret, own.public_key)
    # when
    with hq.engine.begin() as headquarters:
        judge_requests(headquarters, [stolen], own.private_key, datetime.now(UTC))
    # then
    assert (hq.kid(), hq.used(secret)) == (None, (False, 0))
    with pytest.raises(KeyNotAccepted, match="of headquarters itself"), hq.engine.begin() as headquarters:
        add_channel_key(headquarters, "houston", own.public_key, operator=None, source="a test", now=datetime.now(UTC))
    # when an earlier release has accepted it
    row = {"kid": kid(own.public_key), "channel_id": "houston", "public_key": own.public_key}
    with hq.engine.begin() as headquarters:
        headquarters.execute(insert(channel_keys).values(**row, added_at=datetime.now(UTC), added_from="a test"))
        known = read_known_keys(headquarters, NO_KEYS)
    # then
    assert known.channel_by_kid == {kid(own.public_key).encode(): HEADQUARTERS}


def test_suspension_is_in_the_registry_with_its_history_and_no_file_ends_it(hq: Headquarters) -> None:
    """Suspended with a reason, as often as one likes; applying the settings again leaves it; `resume` ends it."""
    # when
    since = suspend(hq.engine, "houston", " the till was stolen ", BY)
    assert suspend(hq.engine, "houston", "the till was stolen", BY) == since
    assert suspend(hq.engine, "houston", "found again", BY) == since
    moved = dict(hq.registry.channels["houston"]) | {"time_zone": "America/Chicago"}
    changed = replace(hq.registry, channels={**hq.registry.channels, "houston": moved})
    apply_registry(hq.engine, changed, source="a test")
    # then
    with hq.engine.connect() as headquarters:
        columns = (channels.c.suspended_at, channels.c.suspended_reason, channels.c.time_zone)
        row = headquarters.execute(select(*columns).where(channels.c.channel_id == "houston")).one()
    assert tuple(row) == (since, "found again", "America/Chicago")
    assert [resume(hq.engine, "houston", BY) for _ in range(2)] == [True, False]
    assert [setting for _, _, setting in hq.changes()] == [
        "channels.houston.suspended",
        "channels.houston.time_zone",
        "channels.houston.suspended",
        "channels.houston.suspended",
    ]
    with hq.engine.connect() as headquarters:
        assert headquarters.scalar(text("SELECT count(*) FROM channels WHERE suspended_at IS NOT NULL")) == 0
    for reason in ("", " ", "x" * 201, "a\nb"):
        with pytest.raises(SettingsError, match="give a reason"):
            suspend(hq.engine, "houston", reason, BY)
