"""The 1010 job: keeps a channel's customers current.

Input: every partition of `customers`, from the positions in the channel's own database; the channel's settings, in
`channel-settings`.
Output: the tables of the channel, and the positions, in one SQL transaction.
Promise: the channel equals the topic at its positions after any crash; no record is skipped or applied backwards.

    crash                            consequence
    before the commit                no effect; the same records are read again
    after the commit                 reading continues behind them

An unreadable snapshot stops its partition only; it is retried every few seconds. A channel that was away for so long
that it may have missed tombstones, or whose topic was recreated, is resynced.
"""

from threading import Event

from tenten.consumers.channel import loop
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_SETTINGS


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Distribute until `stop` is set: the channel's loop without replies. Raises: as the loop."""
    loop.run(settings, channel_name, stop, with_replies=False, settings_topic=CHANNEL_SETTINGS)
