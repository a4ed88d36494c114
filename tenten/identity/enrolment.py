"""Tokens in headquarters' database: made for a channel, used once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, exists, insert, select, update

from tenten.identity.channel_changes import By, changing_channel, check_known, note_change
from tenten.identity.channel_keys import valid_key
from tenten.identity.join_proof import token_id, verifier
from tenten.runtime.errors import TentenError
from tenten.runtime.host import this_host
from tenten.schemas.tables.headquarters import channel_tokens
from tenten.sql.engine import consistent_view


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that is made for a channel."""

    channel_id: str
    secret: bytes
    has_password: bool
    """Whether the store's password at Kafka follows from the secret."""
    expires_at: datetime


def check_enrolment(engine: Engine, channel_id: str, *, rotates: bool) -> bool:
    """Whether an earlier token of the channel came with a password at Kafka.

    Raises: `SettingsError` for a channel that headquarters does not have; `TentenError` for a channel that has joined,
    or with `rotates` for one that has not.
    """
    with consistent_view(engine) as headquarters:
        check_known(headquarters, channel_id)
        _check_key(headquarters, channel_id, rotates=rotates)
        with_password = (channel_tokens.c.channel_id == channel_id, channel_tokens.c.has_password)
        return bool(headquarters.scalar(select(exists().where(*with_password))))


def store_token(engine: Engine, token: NewToken, by: By, *, rotates: bool, last: Callable[[], None]) -> str:
    """Store what is needed to check the token, not its secret; its id. Earlier unused tokens are withdrawn.

    `last` is called when everything has been checked and written, before the commit: if it fails nothing is stored.
    Raises: as `changing_channel` and `check_enrolment`, and what `last` raises.
    """
    now, name, host = datetime.now(UTC), token_id(token.secret), this_host()
    with changing_channel(engine, token.channel_id, by) as headquarters:
        _check_key(headquarters, token.channel_id, rotates=rotates)
        unused = (
            channel_tokens.c.channel_id == token.channel_id,
            channel_tokens.c.used_at.is_(None),
            channel_tokens.c.withdrawn_at.is_(None),
        )
        headquarters.execute(update(channel_tokens).where(*unused).values(withdrawn_at=now))
        row = {
            "token_id": name,
            "channel_id": token.channel_id,
            "verifier": verifier(token.secret),
            "has_password": token.has_password,
            "expires_at": token.expires_at,
            "enrolled_at": now,
            "enrolled_by": by.operator,
            "enrolled_from": host,
        }
        headquarters.execute(insert(channel_tokens).values(row))
        made = {"token": name, "expires_at": token.expires_at.isoformat(timespec="seconds"), "from": host}
        note_change(headquarters, f"{token.channel_id}.token", by, before=None, after=made)
        last()
    return name


def _check_key(headquarters: Connection, channel_id: str, *, rotates: bool) -> None:
    has_joined = valid_key(headquarters, channel_id) is not None
    if has_joined and not rotates:
        raise TentenError(
            f"{channel_id} has joined already: `tenten channel rotate-key {channel_id}` makes a token for another key"
        )
    if rotates and not has_joined:
        raise TentenError(
            f"{channel_id} has not joined yet: `tenten channel enroll {channel_id}` makes its first token"
        )
