"""What the relay signs with, looked at about once a second: after a change it sends its unsettled rows again.

Headquarters answers no row that was signed with a key that it does not accept, or sent while the channel was suspended.
While either is so, as far as the channel's settings tell, nothing is sent. The database remembers with what rows were
sent last, so a change while the relay did not run counts as well, and one that was over before the relay looked.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection, delete, insert, select
from structlog import get_logger

from tenten.identity.signing import RecordSigner
from tenten.identity.store_identity import read_identity
from tenten.producers.relay.maintenance import queue_again
from tenten.producers.relay.producer import RelayProducer
from tenten.schemas.tables.channel import relay_state
from tenten.sql.channel_settings import Acceptance, read_acceptance

log = get_logger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often the relay looks whether its key is another one."""


class Sending(NamedTuple):
    """With what rows are sent."""

    kid: str | None
    """The id of the key; None for a store that has not joined."""
    is_refused: bool
    """Whether headquarters accepts no record: the channel is suspended, or its key is not the valid one."""
    acceptance_changed_at: str | None
    """When headquarters changed that last, as it has published it."""

    @classmethod
    def of(cls, acceptance: Acceptance) -> Self:
        """With what rows are sent now."""
        return cls(
            kid=acceptance.own_kid,
            is_refused=acceptance.suspended is not None or acceptance.is_key_refused,
            acceptance_changed_at=acceptance.changed_at,
        )


class Signing:
    """Sets the signer of the producer, and queues unsettled rows again after a change.

    A relay sends nothing while `pauses` is true, and calls `next_step` when none of its rows is on its way.
    """

    def __init__(self, connection: Connection, producer: RelayProducer) -> None:
        """The connection is in autocommit mode."""
        self._connection = connection
        self._producer = producer
        self._sent_with = _read_sent_with(connection)
        self._now = self._sent_with
        self._look_at = 0.0
        self._has_signer = False
        self._suspension: str | None = None
        self._is_key_problem_logged = False
        self._steps: Iterator[None] | None = None

    def pauses(self) -> bool:
        """Whether no row may be sent now: headquarters would not accept it, or rows must be sent again first."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            acceptance = read_acceptance(self._connection, self._producer.channel)
            self._now = Sending.of(acceptance)
            self._log_suspension(acceptance.suspended)
            self._log_key_problem(acceptance)
        return self._now.is_refused or self._now != self._sent_with or not self._has_signer

    def _log_suspension(self, reason: str | None) -> None:
        if reason != self._suspension and reason is not None:
            log.warning("suspension_received", channel=self._producer.channel, reason=reason)
        elif reason != self._suspension:
            log.info("suspension_ended", channel=self._producer.channel)
        self._suspension = reason

    def _log_key_problem(self, acceptance: Acceptance) -> None:
        channel = self._producer.channel
        is_problem = acceptance.key_problem(channel, datetime.now(UTC)) is not None
        if is_problem and not self._is_key_problem_logged:
            log.error("key_not_accepted", channel=channel, kid=acceptance.own_kid, accepted=acceptance.kid)
        self._is_key_problem_logged = is_problem

    def next_step(self) -> bool:
        """Adapt to what has changed, in small steps; whether more are left. Idempotent after a crash."""
        if self._now.is_refused:
            if not self._sent_with.is_refused:
                self._remember(self._sent_with._replace(is_refused=True))
            return False
        if self._steps is None:
            self._set_signer()
            self._steps = self._queue_again(self._now) if self._now != self._sent_with else iter(())
        for _ in self._steps:
            return True
        self._steps = None
        return False

    def _set_signer(self) -> None:
        identity = read_identity(self._connection)
        self._producer.signer = None if identity is None else RecordSigner.of_store(identity)
        self._now = self._now._replace(kid=None if identity is None else identity.kid)
        self._has_signer = True

    def _queue_again(self, now: Sending) -> Iterator[None]:
        """Queue all unsettled rows again, and remember with what they are sent from now on."""
        log.info("signing_changed", channel=self._producer.channel, kid=now.kid)
        for aggregate_type in self._producer.topic_names:
            yield from queue_again(self._connection, aggregate_type)
        self._remember(now)

    def _remember(self, sent_with: Sending) -> None:
        self._connection.execute(delete(relay_state))
        self._connection.execute(insert(relay_state).values(id=1, **sent_with._asdict()))
        self._sent_with = sent_with


def _read_sent_with(connection: Connection) -> Sending:
    columns = relay_state.c
    row = connection.execute(select(*(columns[name] for name in Sending._fields))).one_or_none()
    return Sending(kid=None, is_refused=False, acceptance_changed_at=None) if row is None else Sending(*row)
