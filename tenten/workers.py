"""Every worker once: its name, group, topics, failpoints, and the function that runs it.

The command line, `tenten up`, status, doctor and the tests of docker-compose.yml and the documentation derive from this
module. A worker's code is imported when it is loaded, so that the declarations are cheap to import.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Final, NamedTuple

from tenten.schemas.consumer_groups import CHANNEL_GROUP
from tenten.schemas.topics import (
    ASYNC_CUSTOMERS,
    ASYNC_CUSTOMERS_DLQ,
    CHANNEL_REPLIES,
    CHANNEL_SETTINGS,
    CHANNEL_STATUS,
    CUSTOMERS,
    ERASURES,
    HEADQUARTERS_STATUS,
    JOINS,
    RETAIL_TRANSACTIONS,
    RETAIL_TRANSACTIONS_DLQ,
    SCHEMAS,
    TRANSACTION_REPLIES,
    Topic,
)

if TYPE_CHECKING:
    from tenten.runtime.settings import Settings


class Start(NamedTuple):
    """The arguments that a worker runs with."""

    settings: "Settings"
    stop: Event
    channel: str = ""
    """Of a channel's worker."""
    slot: int | None = None
    """Of a worker at headquarters: its transactional id; None for the first free one."""


Run = Callable[[Start], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process, or a thread of `tenten channel run`, that runs until it is stopped."""

    name: str
    command: tuple[str, ...]
    """The words after `tenten`; a channel's worker takes the channel's name after them."""
    sentence: str
    """The purpose, as the beginning of its help, which continues with "until SIGTERM"."""
    group: str | None
    """Consumer group, without the prefix of the settings; `{channel}` is replaced by the channel's name."""
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    failpoints: tuple[str, ...]
    package: str
    """The package of its code."""
    load: Callable[[], Run]
    """Imports the code and returns the function that runs it."""
    reads_without_group: tuple[Topic, ...] = ()
    """Topics that one of the processes of a group reads beside the group."""

    @property
    def inputs(self) -> tuple[Topic, ...]:
        """Every topic that it reads."""
        return (*self.reads, *self.reads_without_group)

    def group_of(self, channel: str = "") -> str | None:
        """The consumer group, without the prefix of the settings."""
        return None if self.group is None else self.group.format(channel=channel)


def _load_headquarters() -> Run:
    from tenten.consumers.headquarters.customers.run import run

    return lambda start: run(start.settings, start.stop, start.slot)


def _load_transactions() -> Run:
    from tenten.consumers.headquarters.transactions.run import run

    return lambda start: run(start.settings, start.stop, start.slot)


def _load_relay() -> Run:
    from tenten.producers.relay.run import run

    return lambda start: run(start.channel, start.settings, start.stop)


def _load_settlement() -> Run:
    from tenten.consumers.channel.settlement.run import run

    return lambda start: run(start.settings, start.channel, start.stop)


def _load_distribution() -> Run:
    from tenten.consumers.channel.distribution.run import run

    return lambda start: run(start.settings, start.channel, start.stop)


def _load_loop() -> Run:
    from tenten.consumers.channel.loop import run

    return lambda start: run(start.settings, start.channel, start.stop)


HEADQUARTERS: Final = Worker(
    name="headquarters",
    command=("headquarters", "run"),
    sentence="Give customers their account numbers",
    group="headquarters",
    reads=(ASYNC_CUSTOMERS,),
    reads_without_group=(JOINS,),
    writes=(
        CUSTOMERS,
        CHANNEL_REPLIES,
        ERASURES,
        HEADQUARTERS_STATUS,
        CHANNEL_SETTINGS,
        ASYNC_CUSTOMERS,
        ASYNC_CUSTOMERS_DLQ,
        SCHEMAS,
    ),
    failpoints=(
        "headquarters.after_poll",
        "headquarters.while_judging",
        "headquarters.before_sql_commit",
        "headquarters.after_sql_commit",
        "headquarters.after_begin",
        "headquarters.after_produce",
        "headquarters.after_send_offsets",
        "headquarters.before_kafka_commit",
        "headquarters.after_kafka_commit",
        "headquarters.in_on_revoke",
        "registrar.after_batch",
        "joins.before_commit",
        "joins.after_commit",
    ),
    package="tenten.consumers.headquarters.customers",
    load=_load_headquarters,
)
"""The failpoints are in the order in which a batch passes them; then that of a rebalance, and that of the thread that
publishes settings."""

TRANSACTIONS: Final = Worker(
    name="transactions",
    command=("transactions", "run"),
    sentence="Turn transactions into sales orders and statements",
    group="transactions",
    reads=(RETAIL_TRANSACTIONS,),
    writes=(ASYNC_CUSTOMERS, TRANSACTION_REPLIES, RETAIL_TRANSACTIONS_DLQ, SCHEMAS),
    failpoints=(
        "transactions.after_poll",
        "transactions.while_judging",
        "transactions.before_sql_commit",
        "transactions.after_sql_commit",
        "transactions.after_begin",
        "transactions.after_produce",
        "transactions.after_send_offsets",
        "transactions.before_kafka_commit",
        "transactions.after_kafka_commit",
        "transactions.in_on_revoke",
        "release.before_commit",
        "release.after_commit",
        "answers.after_send",
    ),
    package="tenten.consumers.headquarters.transactions",
    load=_load_transactions,
)
"""The failpoints of a batch, as above; then those of a release pass and of sending the replies."""

RELAY: Final = Worker(
    name="relay",
    command=("channel", "relay"),
    sentence="Send the channel's outbox to headquarters",
    group=None,
    reads=(),
    writes=(ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS, CHANNEL_STATUS),
    failpoints=("relay.after_select", "relay.after_produce", "relay.after_ack", "relay.after_mark"),
    package="tenten.producers.relay",
    load=_load_relay,
)

SETTLEMENT: Final = Worker(
    name="settlement",
    command=("channel", "settle"),
    sentence="Settle the channel's changes by headquarters' replies",
    group=CHANNEL_GROUP,
    reads=(CHANNEL_REPLIES, TRANSACTION_REPLIES, CHANNEL_SETTINGS),
    writes=(),
    failpoints=("settlement.before_commit", "settlement.after_commit"),
    package="tenten.consumers.channel.settlement",
    load=_load_settlement,
)
"""It reads the channel's own partition of each topic only. Settings are read by it and by distribution, and the relay
finds them in the database."""

DISTRIBUTION: Final = Worker(
    name="distribution",
    command=("channel", "distribute"),
    sentence="Apply headquarters' customers to the channel's database",
    group=CHANNEL_GROUP,
    reads=(CUSTOMERS, HEADQUARTERS_STATUS, CHANNEL_SETTINGS),
    writes=(),
    failpoints=(
        "distribution.after_poll",
        "distribution.before_commit",
        "distribution.after_commit",
        "resync.after_slice",
        "resync.after_deferred",
        "resync.before_delete",
        "resync.after_delete",
    ),
    package="tenten.consumers.channel.distribution",
    load=_load_distribution,
)
"""It also resyncs the channel when it must; `tenten channel resync` passes the last four failpoints, too."""

AT_HEADQUARTERS: Final = (HEADQUARTERS, TRANSACTIONS)
"""Each runs as processes of its own, as many as there are partitions."""

IN_CHANNEL: Final = (RELAY, SETTLEMENT, DISTRIBUTION)
"""One of each for a channel: in `tenten channel run`, or processes of their own."""

ALL: Final = (*AT_HEADQUARTERS, *IN_CHANNEL)

STORE_FAILPOINTS: Final = ("customers.before_commit", "customers.after_commit")
"""Passed by any process that writes a clerk's change; of the workers only by the API of `tenten channel run`."""

CHANNEL_FAILPOINTS: Final = (*(name for worker in IN_CHANNEL for name in worker.failpoints), *STORE_FAILPOINTS)
"""Those that `tenten channel run` passes."""

JOIN_FAILPOINTS: Final = (
    "join.after_configuration",
    "join.after_database",
    "join.after_key",
    "join.after_request",
    "join.after_answer",
    "join.after_identity",
    "resync.after_slice",
    "resync.before_delete",
    "resync.after_delete",
)
"""Passed by `tenten store join`, in this order; the last ones while it loads the customers."""


def channel_threads(workers: Sequence[Worker]) -> dict[str, Run]:
    """The threads that run these workers of a channel, by name: settlement and distribution share a loop."""
    loads = {worker.name: worker.load for worker in workers}
    if {SETTLEMENT.name, DISTRIBUTION.name} <= loads.keys():
        loads = {name: load for name, load in loads.items() if name not in (SETTLEMENT.name, DISTRIBUTION.name)}
        loads["loop"] = _load_loop
    return {name: load() for name, load in loads.items()}
