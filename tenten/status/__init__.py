"""The status of headquarters and channels, from their databases, from Kafka and from the channels' heartbeats.

Changes nothing. Each server is asked once, all of them at the same time, and one that does not answer in time is a
problem of its own: the others are shown all the same.
"""

from tenten.status.assignment import wait_for_assignment
from tenten.status.fleet import ChannelOfFleet, fleet
from tenten.status.lag import GroupLag, group_lags
from tenten.status.lateness import CODES_OF_RUNNING
from tenten.status.values import (
    ChannelStatus,
    HeadquartersStatus,
    NumberSequenceStatus,
    Problem,
    TopicStatus,
    VerificationStatus,
    WholeStatus,
)
from tenten.status.whole import channel_status, whole_status

__all__ = [
    "CODES_OF_RUNNING",
    "ChannelOfFleet",
    "ChannelStatus",
    "GroupLag",
    "HeadquartersStatus",
    "NumberSequenceStatus",
    "Problem",
    "TopicStatus",
    "VerificationStatus",
    "WholeStatus",
    "channel_status",
    "fleet",
    "group_lags",
    "wait_for_assignment",
    "whole_status",
]
