"""The status as values."""

from dataclasses import dataclass, field
from datetime import datetime

from tenten.headquarters_views.held import HeldStatus
from tenten.headquarters_views.transactions import TransactionsStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A state that needs a person."""

    about: tuple[str, ...]
    """The parts that have it: channels, `headquarters`, topics, `Kafka`."""
    code: str
    """For programs."""
    text: str
    """What happened, what it means, and the command that leads out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """A topic of the catalogue, as Kafka has it."""

    topic: str
    partitions: int | None = None
    offsets: int | None = None
    """Last minus first offset: an upper bound of the number of records, because a compacted topic has gaps."""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSequenceStatus:
    """The account numbers of a legal entity: the next, and how many are left."""

    format: str
    next: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationStatus:
    """The last comparison of database and topic, by the schedule or by a command."""

    finished_at: datetime
    customers: int
    missing: int
    surplus: int
    different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadquartersStatus:
    """Counts of headquarters' database, its lag in records, and its running workers."""

    customers: int | None = None
    """None if counting takes too long, as are the next two."""
    events: int | None = None
    rejected: int | None = None
    conflicts: int | None = None
    """Events whose id has come again with other content, which was rejected: somebody uses an id twice."""
    lag: int | None = None
    """None if Kafka did not answer."""
    workers: dict[str, int | None] = field(default_factory=dict)
    """Running processes by worker; None if Kafka did not answer."""
    number_sequences: dict[str, NumberSequenceStatus] = field(default_factory=dict)
    held: HeldStatus | None = None
    """The customer events that headquarters cannot judge yet, by cause."""
    verification: VerificationStatus | None = None
    """None if database and topic have never been compared."""
    transactions: TransactionsStatus | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatus:
    """Counts of a channel's database, its lag in records, and its heartbeat."""

    customers: int | None = None
    pending: int | None = None
    """Customers without an account number."""
    unsettled: int | None = None
    """Changes of this channel that headquarters has not settled: unsent, sent or rejected."""
    unsent: int | None = None
    rejected: int | None = None
    oldest_unsent_at: datetime | None = None
    oldest_unsettled_at: datetime | None = None
    """Of the changes that headquarters has neither settled nor rejected."""
    confirmed_at: datetime | None = None
    """When the channel was last known to be at the end of every partition."""
    heard_at: datetime | None = None
    """The last heartbeat; None if there is none, or Kafka was not asked."""
    lag: int | None = None
    """None if Kafka did not answer."""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeStatus:
    """Topics, headquarters and channels, with every problem of theirs."""

    topics: list[TopicStatus]
    headquarters: HeadquartersStatus
    channels: dict[str, ChannelStatus]
    problems: list[Problem]

    @property
    def healthy(self) -> bool:
        """True if everything answers, everything that should run does, and nothing is late."""
        return not self.problems
