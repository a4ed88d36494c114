"""Settle replies to a channel, within the SQL transaction of its loop."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.settlement.customers import settle_customers
from tenten.consumers.channel.settlement.replies import AnyReply
from tenten.consumers.channel.settlement.transactions import settle_transactions
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import Reply, TransactionReply
from tenten.sql.notifications import SETTLED_CHANNEL


def settle(
    connection: Connection, view: ChannelView, replies: Sequence[AnyReply], at: datetime, also_lock: Iterable[str] = ()
) -> None:
    """Settle replies to this channel, in order. Idempotent. A fixed number of statements.

    Locks customers before transactions, and both before the outbox, as a clerk's change does; and with the customers
    those that the caller is going to write in this transaction.
    """
    to_customers = [reply for reply in replies if isinstance(reply, Reply)]
    to_transactions = [reply for reply in replies if isinstance(reply, TransactionReply)]
    if to_customers:
        settle_customers(connection, view, to_customers, at, also_lock)
    if to_transactions:
        settle_transactions(connection, to_transactions, at)
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": SETTLED_CHANNEL})
    failpoint("settlement.before_commit")
