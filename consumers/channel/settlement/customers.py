"""Replies to customer events: settle the outbox rows, store account numbers, refresh overlays.

Runs within settlement's SQL transaction.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.overlay import erase_customers, refresh_overlays
from tenten.schemas.messages import Outcome, Reply, reasons_as_json


def settle_customers(connection: Connection, view: ChannelView, replies: Sequence[Reply], at: datetime) -> None:
    """Settle customer events by these replies, in order. Idempotent. A fixed number of statements.

    An event that was rejected takes only a reply with a higher judgement number; one that is settled takes none.
    Locks the customers' rows, in the order of their GUIDs, before it writes the outbox, as a clerk's change does.
    """
    erased = {reply.customer_id for reply in replies if reply.outcome is Outcome.ERASED}
    touched = {reply.customer_id for reply in replies}
    channel_database(connection).lock_versions(connection, touched)
    events: dict[str, Reply] = {}
    for reply in replies:
        if reply.event_id not in events or _replaces(reply, events[reply.event_id]):
            events[reply.event_id] = reply
    numbers = {reply.customer_id: reply.account_number for reply in reversed(replies) if reply.account_number}
    settle_events, store_numbers = _SETTLE[connection.dialect.name]
    connection.execute(text(settle_events), {"replies": json.dumps([_row(reply, at) for reply in events.values()])})
    connection.execute(text(store_numbers), {"numbers": json.dumps(numbers)})
    erase_customers(connection, sorted(erased), view.channel_id, at)
    refresh_overlays(connection, sorted(touched - erased), view.filter, view.writers)


def _replaces(reply: Reply, earlier: Reply) -> bool:
    """Whether a reply counts after an earlier one to the same event: the rule of the statements below."""
    return earlier.outcome is Outcome.REJECTED and (reply.judgement > earlier.judgement or earlier.judgement == 0)


def _row(reply: Reply, at: datetime) -> dict[str, object]:
    """A reply as the statements below read it. A rejected event stays unsettled: the clerk has to act on it."""
    return {
        "event_id": reply.event_id,
        "customer_id": reply.customer_id,
        "outcome": reply.outcome.lower(),
        "reasons": reasons_as_json(reply.reasons) or None,
        "account_number": reply.account_number,
        "version": reply.version,
        "judgement": reply.judgement,
        "settled_at": None if reply.outcome is Outcome.REJECTED else at.isoformat(timespec="microseconds"),
    }


# By database: settle events that are not settled yet, and give account numbers to customers that have none. Replies of
# release 0.1.0 have no judgement number: the later one counts until a numbered reply arrives. `coalesce` keeps either
# database from scanning every pending customer through the index of account numbers.
_SETTLE: Final = {
    "postgresql": (
        """
        UPDATE outbox SET outcome = r.outcome, reasons = r.reasons, account_number = r.account_number,
            version = r.version, judgement = r.judgement, settled_at = r.settled_at
        FROM json_to_recordset(CAST(:replies AS json)) AS r (
            event_id uuid, outcome text, reasons json, account_number text, version bigint, judgement bigint,
            settled_at timestamptz)
        WHERE outbox.id = r.event_id AND outbox.settled_at IS NULL
              AND (r.judgement > outbox.judgement OR outbox.judgement = 0)
        """,
        """
        UPDATE customers SET account_number = given.value FROM json_each_text(CAST(:numbers AS json)) AS given
        WHERE customers.customer_id = CAST(given.key AS uuid) AND coalesce(customers.account_number, '') = ''
        """,
    ),
    "sqlite": (
        """
        UPDATE outbox SET outcome = r.outcome, reasons = r.reasons, account_number = r.account_number,
            version = r.version, judgement = r.judgement, settled_at = r.settled_at
        FROM (SELECT json_extract(value, '$.event_id') AS event_id, json_extract(value, '$.outcome') AS outcome,
                json_extract(value, '$.reasons') AS reasons, json_extract(value, '$.account_number') AS account_number,
                json_extract(value, '$.version') AS version, json_extract(value, '$.judgement') AS judgement,
                json_extract(value, '$.settled_at') AS settled_at
            FROM json_each(:replies)) AS r
        WHERE outbox.id = r.event_id AND outbox.settled_at IS NULL
              AND (r.judgement > outbox.judgement OR outbox.judgement = 0)
        """,
        """
        UPDATE customers SET account_number = given.value FROM json_each(:numbers) AS given
        WHERE customers.customer_id = given.key AND coalesce(customers.account_number, '') = ''
        """,
    ),
}
