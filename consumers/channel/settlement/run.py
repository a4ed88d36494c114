"""Settlement: closes what a channel is waiting for, by headquarters' replies.

Input: the channel's own partition of `channel-replies` (customer events) and of `transaction-replies` (orders, sales
and ends of day), from the positions in the channel's database. Release 0.1.0 answered both in `channel-replies`. The
channel's settings, in `channel-settings`.
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

from threading import Event

from tenten.consumers.channel import loop
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_SETTINGS


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Settle until `stop` is set: the channel's loop without snapshots. Raises: as the loop."""
    loop.run(settings, channel_name, stop, with_snapshots=False, settings_topic=CHANNEL_SETTINGS)
