"""How many dead letters in a row each channel has written: one that writes nothing else is suspended.

Only records count that the channel has signed. Rubbish that somebody else writes in its name is not its fault, and
never stops headquarters or a channel.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tenten.consumers.headquarters.authenticity import Signers
from tenten.schemas.messages import HEADQUARTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStreaks:
    """The streaks of consecutive dead letters among the records that a channel has signed, by channel."""

    at_end: Mapping[str, int] = field(default_factory=dict)
    """After the last batch; without channels whose last record was accepted."""
    longest: Mapping[str, int] = field(default_factory=dict)
    """Within the last batch, and those that began before it."""

    def after(self, dead_letters: Collection[int], signers: Signers) -> "ChannelStreaks":
        """The streaks after one more batch, of which these rows are dead letters."""
        concerned = {signers[row] for row in dead_letters}.union(self.at_end) - {None, HEADQUARTERS}
        if not concerned:
            return ChannelStreaks()
        bad = frozenset(dead_letters)
        running, longest = dict(self.at_end), dict(self.at_end)
        for row, signer in enumerate(signers):
            if signer is not None and signer in concerned:
                running[signer] = running.get(signer, 0) + 1 if row in bad else 0
                longest[signer] = max(longest.get(signer, 0), running[signer])
        return ChannelStreaks(
            at_end={channel: streak for channel, streak in running.items() if streak},
            longest=longest,
        )

    def longer_than(self, streak_max: int) -> dict[str, int]:
        """The channels with a longer streak than this, and its length."""
        return {channel: streak for channel, streak in self.longest.items() if streak > streak_max}
