"""Settlement: closes what a channel is waiting for, by headquarters' replies.

Input: the channel's own partition of `channel-replies` (customer events) and of `transaction-replies` (orders, sales
and ends of day), from the positions in the channel's database. Release 0.1.0 answered both in `channel-replies`.
Output: settled outbox rows, account numbers, the statuses of orders, sales and ends of day, and the positions. Replies
and the position behind them are one SQL transaction.
Promise: every reply is settled once, in the order of its topic, and its effects become visible together.

    crash                            consequence
    before the commit                no effect; the same replies are read again
    after the commit                 reading continues behind them

Nothing depends on the order between the topics: a transaction takes only a reply with a higher number.
Replies to events that this database does not have (it was restored from a backup) change nothing. Replies to other
channels in the same partition are skipped by their key. Replies with an unknown outcome or status, and records of
another type, leave their events unsettled. An unreadable reply to this channel stops its topic, as none may be skipped;
it is retried every few seconds.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event
from time import monotonic
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.settlement.reply_stream import ReplyStream
from tenten.kafka.assigned_reader import POLL_SECONDS
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_exists
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_REPLIES, TRANSACTION_REPLIES
from tenten.sql.engine import open_database
from tenten.sql.migrations import check_version

log = get_logger(__name__)

MISSING_TOPIC_SECONDS: Final = 15.0
"""The time after which a missing `transaction-replies` is looked for again."""


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Settle until `stop` is set.

    Raises, each with a remedy: `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`.
    """
    view = ChannelView.of(settings, channel_name, writer_schemas(settings))
    engine = open_database(settings.channel(channel_name).database)
    retry = Retry("settlement", channel_name, stop)
    try:
        while not stop.is_set():
            with retry.retrying():
                check_version(engine, "channel")
                _follow(settings, engine, view, retry=retry, stop=stop)
    finally:
        engine.dispose()


def _follow(settings: Settings, engine: Engine, view: ChannelView, *, retry: Retry, stop: Event) -> None:
    """Settle replies until `stop` is set or a topic was recreated.

    While headquarters has not created `transaction-replies` yet (it is of an earlier release), customer events are
    settled, and the topic is looked for every few seconds.
    """
    with ExitStack() as stack:
        streams = [stack.enter_context(ReplyStream(settings, engine, view, CHANNEL_REPLIES))]
        look_at, is_logged = 0.0, False
        while not stop.is_set() and not any(stream.topic_changed() for stream in streams):
            if len(streams) == 1 and monotonic() >= look_at:
                if topic_exists(settings, settings.topic(TRANSACTION_REPLIES)):
                    streams.append(stack.enter_context(ReplyStream(settings, engine, view, TRANSACTION_REPLIES)))
                elif not is_logged:
                    is_logged = True
                    topic = settings.topic(TRANSACTION_REPLIES)
                    log.warning("reply_topic_missing", channel=view.channel_id, topic=topic)
                look_at = monotonic() + MISSING_TOPIC_SECONDS
            _settle_next(streams, retry, stop)


def _settle_next(streams: Sequence[ReplyStream], retry: Retry, stop: Event) -> None:
    """Settle the next batch of each topic. Waits a little for the first reply where there is none.

    The wait is for customer events: a clerk may be waiting for an account number.
    """
    readable = [stream for stream in streams if stream.is_readable()]
    if not readable:
        stop.wait(POLL_SECONDS)
    for stream in readable:
        is_first = stream is readable[0]
        is_idle = not any(other.has_more for other in readable)
        if stream.settle_next(POLL_SECONDS if is_first and is_idle else 0.0):
            retry.recovered()
