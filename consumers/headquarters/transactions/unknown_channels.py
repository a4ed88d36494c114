"""Sales of channels that headquarters did not know when it ingested them: blocked until it knows them."""

import random
from datetime import UTC, datetime
from threading import Event
from typing import Final

from sqlalchemy import JSON, Engine, bindparam, text
from structlog import get_logger

from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.consumers.headquarters.transactions.blocking import replies_of
from tenten.consumers.headquarters.transactions.reply_outbox import enqueue_replies
from tenten.registry.apply import SETTINGS_CHANNEL
from tenten.runtime.retry import Retry
from tenten.schemas.messages import Reason, reasons_as_json
from tenten.sql.notifications import listening

log = get_logger(__name__)

ACCEPT_SECONDS: Final = 60.0
"""How often the blocked sales are compared with the known channels; a worker also does it when it starts, and when the
settings have changed."""

_TRANSACTIONS_MAX: Final = 10_000
"""Maximum number of transactions in one SQL transaction."""


def accept_repeatedly(registry: ChannelRegistry, engine: Engine, retry: Retry, stop: Event) -> None:
    """Accept the blocked sales of new channels, and keep the registry up to date, until `stop` is set.

    Raises: the errors of the database.
    """
    with listening(engine, SETTINGS_CHANNEL) as notification:
        while not stop.is_set():
            registry.refresh()
            accepted = accept_known_channels(engine)
            if accepted:
                log.info("transactions_of_new_channels_accepted", transactions=accepted)
            retry.recovered()
            notification.wait(ACCEPT_SECONDS * random.uniform(0.8, 1.2), stop)


def accept_known_channels(engine: Engine) -> int:
    """Let the blocked sales of channels that are known now wait for their customers; return how many there were.

    A sale of another legal entity than its channel's is rejected. Replies to each. Idempotent.
    """
    accepted = 0
    while True:
        with engine.begin() as headquarters:
            now = datetime.now(UTC)
            values = {
                "why": reasons_as_json([_OTHER_LEGAL_ENTITY]),
                "now": now,
                "rows_max": _TRANSACTIONS_MAX,
            }
            replies = replies_of(headquarters.execute(_ACCEPT, values))
            enqueue_replies(headquarters, replies, now)
        accepted += len(replies)
        if len(replies) < _TRANSACTIONS_MAX:
            return accepted


_OTHER_LEGAL_ENTITY: Final = Reason(
    field="legal_entity", code="other_legal_entity", text="The legal entity is not that of this channel."
)

_ACCEPT: Final = text(
    """
    UPDATE retail_transactions AS blocked
    SET status = CASE WHEN known.legal_entity = blocked.legal_entity THEN 'waiting' ELSE 'rejected' END,
        reasons = CASE WHEN known.legal_entity = blocked.legal_entity THEN CAST('[]' AS json) ELSE :why END,
        changed_at = :now, answer = answer + 1
    FROM (
        SELECT transaction_id, channels.legal_entity
        FROM retail_transactions JOIN channels USING (channel_id)
        WHERE status = 'blocked' AND reasons::text LIKE '%"unknown_channel"%'
        LIMIT :rows_max
        FOR UPDATE OF retail_transactions SKIP LOCKED
    ) AS known
    WHERE blocked.transaction_id = known.transaction_id
    RETURNING blocked.transaction_id::text, channel_id, status, reasons, answer, partition, "offset"
    """
).bindparams(bindparam("why", type_=JSON))
