"""Judge requests to join: the key of a store that has proved its token becomes valid, and the token is used up.

A request without a valid proof changes nothing about its token: who knows only a channel's name cannot use it up.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, select, text, update
from sqlalchemy.dialects.postgresql import insert
from structlog import get_logger

from tenten.identity.channel_changes import By, note_change
from tenten.identity.channel_keys import add_channel_key, valid_key
from tenten.identity.join_proof import NONCE_BYTES, answer_mac, request_mac
from tenten.identity.keys import KEY_BYTES, MAC_BYTES, public_key_of, record_key
from tenten.identity.keys import kid as kid_of
from tenten.runtime.host import HOST_CHARACTERS_MAX
from tenten.schemas.messages import JoinRequest
from tenten.schemas.tables.headquarters import channel_tokens, channels, join_answers

log = get_logger(__name__)

ANSWERS_MAX: Final = 5
"""Answers that are kept for a channel: its newest; of requests without proof only one."""

_UNPROVEN_PAUSE: Final = timedelta(seconds=10)
"""A channel's next request without proof is answered after this time: an answer is a record that is published."""

_REFUSED_PAUSE: Final = timedelta(seconds=10)
"""The same for a token that is good for nothing any more."""

_SOURCE: Final = "store join"
"""In the history."""

_ID_CHARACTERS_MAX: Final = 64


class JoinOutcome(StrEnum):
    """The answer to a request to join."""

    JOINED = "joined"
    EXPIRED = "expired"
    USED = "used"
    WITHDRAWN = "withdrawn"
    REPLACED = "replaced"
    """The key was valid once, and is not any more."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A token that was used came with another key."""

    channel_id: str
    token_id: str
    host: str
    """The machine that has sent it, as it says."""
    refused: int
    """How often that was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of requests."""

    unproven: int
    """Those without proof."""
    has_stored: bool
    """Whether there is anything new to publish."""
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    outcome: JoinOutcome
    text: str = ""
    is_proven: bool = True
    alarm: Alarm | None = None


def is_plausible(request: JoinRequest) -> bool:
    """Whether the fields of a request have the lengths that they must have."""
    return (
        len(request.public_key) == KEY_BYTES
        and len(request.mac) == MAC_BYTES
        and len(request.nonce) == 2 * NONCE_BYTES
        and set(request.nonce) <= set("0123456789abcdef")
        and 0 < len(request.channel_id) <= _ID_CHARACTERS_MAX
        and 0 < len(request.token_id) <= _ID_CHARACTERS_MAX
        and request.channel_id.isprintable()
        and request.token_id.isprintable()
        and len(request.host) <= HOST_CHARACTERS_MAX
        and request.host.isprintable()
    )


def judge_requests(
    headquarters: Connection, requests: Sequence[JoinRequest], private_key: bytes, now: datetime
) -> Judged:
    """Judge plausible requests in their order, and store the answers.

    Idempotent: the same request gets the same answer. The caller holds the registry's lock, and commits.
    """
    unproven, has_stored = 0, False
    alarms: list[Alarm] = []
    # A flood of requests without proof costs a statement for each channel, not for each request.
    answered_unproven: set[str] = set()
    known = _known_channels(headquarters, {request.channel_id for request in requests})
    tokens = _tokens(headquarters, {request.token_id for request in requests})
    for request in requests:
        token = tokens.get(request.token_id)
        if request.channel_id not in known or not _has_proof(request, token, private_key):
            unproven += 1
            if request.channel_id in known - answered_unproven:
                answered_unproven.add(request.channel_id)
                if not _has_answered_unproven(headquarters, request.channel_id, now):
                    has_stored |= _store(headquarters, request, _unknown(request.channel_id), private_key, now)
            continue
        answer = _judge(headquarters, request, token, now)
        if answer is not None:
            has_stored |= _store(headquarters, request, answer, private_key, now)
            alarms += [] if answer.alarm is None else [answer.alarm]
            # What was written counts for the requests that follow.
            tokens |= _tokens(headquarters, {request.token_id})
    return Judged(unproven=unproven, has_stored=has_stored, alarms=tuple(alarms))


def _judge(headquarters: Connection, request: JoinRequest, token: Any, now: datetime) -> _Answer | None:
    """The answer to a request that has proved its token; makes its key valid, and uses up the token.

    None for a token that has had its answer: who holds a token that is good for nothing cannot make headquarters write.
    """
    kid = kid_of(request.public_key)
    if token.used_at is not None and token.used_kid == kid:
        return _judge_again(headquarters, request, kid, now)
    if _is_usable(headquarters, token, kid, now):
        return _accept(headquarters, request, token, kid, now)
    if token.refused_at is not None and token.refused_at > now - _REFUSED_PAUSE:
        return None
    with_another_key = token.used_at is not None
    values = {"token_id": request.token_id, "now": now, "with_another_key": int(with_another_key)}
    count = headquarters.scalar(_COUNT_REFUSED, values)
    if with_another_key:
        host = request.host
        alarm = Alarm(channel_id=request.channel_id, token_id=request.token_id, host=host, refused=count)
        return _Answer(outcome=JoinOutcome.USED, text=_used(request.channel_id, token), alarm=alarm)
    return _refusal(request.channel_id, token, now)


def _is_usable(headquarters: Connection, token: Any, kid: str, now: datetime) -> bool:
    """Whether a store can join with this token and this key."""
    is_spent = token.used_at is not None or token.withdrawn_at is not None or now >= token.expires_at
    if is_spent:
        return False
    valid = valid_key(headquarters, token.channel_id)
    # The key may be valid already: a restored database has taken it back, and not that the token is used up.
    return (valid is not None and valid.kid == kid) or not headquarters.scalar(_IS_KNOWN_KEY, {"kid": kid})


def _accept(headquarters: Connection, request: JoinRequest, token: Any, kid: str, now: datetime) -> _Answer:
    channel = request.channel_id
    add_channel_key(headquarters, channel, request.public_key, operator=token.enrolled_by, source=_SOURCE, now=now)
    used = {"used_at": now, "used_kid": kid, "used_from": request.host}
    headquarters.execute(update(channel_tokens).where(channel_tokens.c.token_id == request.token_id).values(**used))
    joined = {"token": request.token_id, "kid": kid, "from": request.host}
    by = By(source=_SOURCE, operator=token.enrolled_by)
    note_change(headquarters, f"{channel}.joined", by, before=None, after=joined)
    log.info("store_joined", channel=channel, kid=kid, host=request.host)
    return _Answer(outcome=JoinOutcome.JOINED)


def _judge_again(headquarters: Connection, request: JoinRequest, kid: str, now: datetime) -> _Answer | None:
    """The answer to the key that has joined with this token: the same again. None for one attempt after the other: a
    store repeats its attempt, it does not make others.
    """
    channel = request.channel_id
    others = {"channel_id": channel, "nonce": request.nonce, "before": now - _REFUSED_PAUSE}
    if headquarters.scalar(_ANSWERED_AGAIN, others):
        return None
    valid = valid_key(headquarters, channel)
    if valid is None or valid.kid != kid:
        text = (
            "the key that joined with this token was replaced since: ask headquarters for a new token "
            f"({_rotate(channel)})"
        )
        return _Answer(outcome=JoinOutcome.REPLACED, text=text)
    return _Answer(outcome=JoinOutcome.JOINED)


def _refusal(channel: str, token: Any, now: datetime) -> _Answer:
    """The answer to a token that was not used, and to a key that was."""
    if token.withdrawn_at is not None:
        text = "headquarters has withdrawn this token, as it does when it makes a newer token: join with the newest one"
        return _Answer(outcome=JoinOutcome.WITHDRAWN, text=text)
    if now >= token.expires_at:
        text = f"this token expired at {_minute(token.expires_at)} by headquarters' clock: {_new_token(channel)}"
        return _Answer(outcome=JoinOutcome.EXPIRED, text=text)
    text = f"this key was used before, and cannot be used again: {_new_token(channel)}"
    return _Answer(outcome=JoinOutcome.REPLACED, text=text)


def _used(channel: str, token: Any) -> str:
    """The text for another key under a used token. It is published: the name of the other machine is not in it."""
    return (
        f"this token was used at {_minute(token.used_at)} by another machine, with another key; if that was not this "
        f"store, tell headquarters, which replaces that key ({_rotate(channel)})"
    )


def _rotate(channel: str) -> str:
    return f"`tenten channel rotate-key {channel}`"


def _has_proof(request: JoinRequest, token: Any, private_key: bytes) -> bool:
    """Whether the request was written with this token of its channel, and has a key that can be used."""
    if token is None or token.channel_id != request.channel_id:
        return False
    expected = request_mac(token.verifier, request.channel_id, request.public_key, request.nonce, request.host)
    return hmac.compare_digest(expected, request.mac) and _shared_key(private_key, request.public_key) is not None


def _shared_key(private_key: bytes, public_key: bytes) -> bytes | None:
    """The key that proves answers; None for a key that no store can have: with which everybody would have the same
    one, or headquarters' own, with which the channel would take its records.
    """
    if kid_of(public_key) == kid_of(public_key_of(private_key)):
        return None
    try:
        return record_key(private_key, public_key)
    except ValueError:
        return None


def _unknown(channel: str) -> _Answer:
    text = f"headquarters does not know this token: {_new_token(channel)}"
    return _Answer(outcome=JoinOutcome.UNKNOWN, text=text, is_proven=False)


def _new_token(channel: str) -> str:
    return f"ask headquarters for a new one (`tenten channel enroll {channel}`)"


def _has_answered_unproven(headquarters: Connection, channel: str, now: datetime) -> bool:
    return bool(headquarters.scalar(_ANSWERED_UNPROVEN, {"channel_id": channel, "before": now - _UNPROVEN_PAUSE}))


def _store(headquarters: Connection, request: JoinRequest, answer: _Answer, private_key: bytes, now: datetime) -> bool:
    """Store the answer for publication; whether it is new. It replaces none that was given to a request with proof."""
    shared = _shared_key(private_key, request.public_key)
    if shared is None:
        return False
    mac = answer_mac(shared, request.channel_id, request.nonce, answer.outcome, answer.text)
    row: dict[str, Any] = {"channel_id": request.channel_id, "nonce": request.nonce, "outcome": answer.outcome.value}
    row |= {"text": answer.text, "mac": mac, "is_proven": answer.is_proven}
    new = insert(join_answers).values(**row, answered_at=now)
    changed = (join_answers.c.mac != new.excluded.mac) & (new.excluded.is_proven | ~join_answers.c.is_proven)
    columns = ("outcome", "text", "mac", "is_proven", "answered_at")
    replaced = {name: new.excluded[name] for name in columns}
    stored = headquarters.execute(
        new.on_conflict_do_update(index_elements=list(join_answers.primary_key), set_=replaced, where=changed)
    )
    if stored.rowcount == 0:
        return False
    headquarters.execute(_FORGET, {"channel_id": request.channel_id, "answers_max": ANSWERS_MAX})
    return True


def _known_channels(headquarters: Connection, names: set[str]) -> set[str]:
    return set(headquarters.scalars(select(channels.c.channel_id).where(channels.c.channel_id.in_(names))))


def _tokens(headquarters: Connection, token_ids: set[str]) -> dict[str, Any]:
    query = select(channel_tokens).where(channel_tokens.c.token_id.in_(token_ids))
    return {row.token_id: row for row in headquarters.execute(query)}


def _minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


_ANSWERED_UNPROVEN: Final = text(
    """
    SELECT EXISTS (
        SELECT FROM join_answers WHERE channel_id = :channel_id AND NOT is_proven AND answered_at > :before
    )
    """
)

_COUNT_REFUSED: Final = text(
    """
    UPDATE channel_tokens SET refused = refused + :with_another_key, refused_at = :now WHERE token_id = :token_id
    RETURNING refused
    """
)

_ANSWERED_AGAIN: Final = text(
    """
    SELECT EXISTS (
        SELECT FROM join_answers
        WHERE channel_id = :channel_id AND is_proven AND nonce <> :nonce AND outcome IN ('joined', 'replaced')
            AND answered_at > :before
    )
    """
)

_IS_KNOWN_KEY: Final = text("SELECT EXISTS (SELECT FROM channel_keys WHERE kid = :kid)")

_FORGET: Final = text(
    """
    WITH kept AS (
        SELECT nonce FROM join_answers AS answer
        JOIN channel_keys AS valid ON valid.channel_id = answer.channel_id AND valid.revoked_at IS NULL
        WHERE answer.channel_id = :channel_id AND answer.outcome = 'joined' AND answer.answered_at >= valid.added_at
        ORDER BY answer.answered_at, answer.nonce LIMIT 1
    )
    DELETE FROM join_answers WHERE channel_id = :channel_id AND nonce IN (
        SELECT nonce FROM (
            SELECT nonce, is_proven, row_number() OVER (
                PARTITION BY is_proven ORDER BY nonce IN (SELECT nonce FROM kept) DESC, answered_at DESC, nonce
            ) AS place
            FROM join_answers WHERE channel_id = :channel_id
        ) AS answers
        WHERE place > CASE WHEN is_proven THEN :answers_max - 1 ELSE 1 END
    )
    """
)
"""Keep the newest answer without proof, and the newest others: an attacker's do not displace a store's. That with which
the valid key has joined stays as long as the key: it is the first one that the key got.
"""
