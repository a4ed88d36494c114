"""Every metric of the product: its type, its labels, which processes serve it, and its meaning.

Tests compare this catalogue with the code, and with what real processes serve at `/metrics`. No label ever contains a
customer: the number of series depends on channels, topics, codes and routes only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

ProcessKind = Literal["headquarters", "transactions", "channel", "dashboard"]
"""The customers worker, the transactions worker, any process of a channel, and headquarters' dashboard."""

_WORKERS: Final[tuple[ProcessKind, ...]] = ("headquarters", "transactions")
_ALL: Final[tuple[ProcessKind, ...]] = (*_WORKERS, "channel")
_EVERY: Final[tuple[ProcessKind, ...]] = (*_ALL, "dashboard")

_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_NUMBER_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric; `read` ones are looked up when they are asked for, the others are counted by the process."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    served_by: tuple[ProcessKind, ...] = _ALL
    read: Literal["database", "broker"] | None = None
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram, in seconds."""


METRICS: Final[Mapping[str, Metric]] = {
    "tenten_build_info": Metric(
        kind="gauge",
        labels=("version", "process"),
        served_by=_EVERY,
        meaning="Always 1: the release, and the worker or the channel.",
    ),
    "tenten_scrape_problem": Metric(
        kind="gauge",
        labels=("about",),
        meaning="1 while `database`, `broker` or `heartbeats` (which are read from the broker) did not answer this "
        "request in time: what is read there is absent.",
    ),
    "tenten_retrying": Metric(
        kind="gauge",
        labels=("part",),
        served_by=_EVERY,
        meaning="1 while a part of the process retries what fails, as when a server is away; 0 after it succeeded.",
    ),
    "tenten_batches_total": Metric(
        kind="counter",
        labels=("part",),
        meaning="Batches that were committed, by part: `headquarters`, `transactions`, and `channel`, whose batch is a "
        "transaction with replies, snapshots or both.",
    ),
    "tenten_batch_records_total": Metric(
        kind="counter",
        labels=("part",),
        meaning="Records in these batches; of a channel by `settlement` (replies) and `distribution` (snapshots).",
    ),
    "tenten_batch_seconds": Metric(
        kind="histogram",
        labels=("part",),
        buckets=_BATCH_SECONDS,
        meaning="Time to process and commit a batch.",
    ),
    "tenten_http_requests_total": Metric(
        kind="counter",
        labels=("method", "route", "status"),
        served_by=_EVERY,
        meaning="HTTP requests by route as declared, without ids; `unknown` for other paths.",
    ),
    "tenten_http_request_seconds": Metric(
        kind="histogram",
        labels=("method", "route"),
        buckets=_REQUEST_SECONDS,
        served_by=_EVERY,
        meaning="Time to answer an HTTP request, to the end of its response.",
    ),
    "kafka_consumergroup_lag": Metric(
        kind="gauge",
        labels=("consumergroup", "topic", "partition"),
        read="broker",
        meaning="Records that a group has not processed. At headquarters the worker's own group, from its committed "
        "offsets; in a channel every partition that it reads, from the positions in its database.",
    ),
    # Headquarters.
    "tenten_assigned_partitions": Metric(
        kind="gauge",
        served_by=_WORKERS,
        meaning="Partitions that the group has given to this worker; absent until it has joined.",
    ),
    "tenten_dead_letters_total": Metric(
        kind="counter",
        labels=("reason",),
        served_by=_WORKERS,
        meaning="Records that became dead letters, by the code of the reason.",
    ),
    "tenten_transactions_aborted_total": Metric(
        kind="counter",
        labels=("code",),
        served_by=_WORKERS,
        meaning="Kafka transactions that were aborted or given up, by Kafka's error code; `other`: the batch failed "
        "for another reason.",
    ),
    "tenten_events_total": Metric(
        kind="counter",
        labels=("outcome",),
        served_by=("headquarters",),
        meaning="Customer events that were answered, by outcome; repeats count again.",
    ),
    "tenten_held_events": Metric(
        kind="gauge",
        labels=("code",),
        read="database",
        served_by=("headquarters",),
        meaning="Customer events that headquarters holds, by the code of the cause.",
    ),
    "tenten_held_oldest_seconds": Metric(
        kind="gauge",
        read="database",
        served_by=("headquarters",),
        meaning="How long the oldest of them has been held; 0 without any.",
    ),
    "tenten_account_numbers_left": Metric(
        kind="gauge",
        labels=("legal_entity",),
        read="database",
        served_by=("headquarters",),
        meaning="Account numbers that a legal entity can still give.",
    ),
    "tenten_channel_heard_timestamp_seconds": Metric(
        kind="gauge",
        labels=("channel",),
        read="broker",
        served_by=("headquarters",),
        meaning="When headquarters last heard from a channel; absent before it was heard from.",
    ),
    "tenten_channel_suspended": Metric(
        kind="gauge",
        labels=("channel",),
        read="broker",
        served_by=("headquarters",),
        meaning="1 while headquarters accepts nothing from a channel, otherwise 0; for each channel of the settings.",
    ),
    "tenten_channel_complete_timestamp_seconds": Metric(
        kind="gauge",
        labels=("channel",),
        read="broker",
        served_by=("headquarters", "channel"),
        meaning="When a channel was last known to have every customer: at headquarters from heartbeats, in a channel "
        "from its own database.",
    ),
    "tenten_statements_open": Metric(
        kind="gauge",
        read="database",
        served_by=("transactions",),
        meaning="Statements that are not posted: waiting or blocked.",
    ),
    "tenten_statement_oldest_blocked_seconds": Metric(
        kind="gauge",
        read="database",
        served_by=("transactions",),
        meaning="How long the oldest blocked statement has been waiting for a correction; 0 without any.",
    ),
    "tenten_transactions_open": Metric(
        kind="gauge",
        labels=("status",),
        read="database",
        served_by=("transactions",),
        meaning="Orders and sales that are `waiting`, `blocked` or `rejected`.",
    ),
    "tenten_transactions_oldest_waiting_seconds": Metric(
        kind="gauge",
        read="database",
        served_by=("transactions",),
        meaning="How long the oldest waiting order or sale has been waiting for its customer; 0 without any.",
    ),
    # Channels.
    "tenten_outbox_unsent": Metric(
        kind="gauge",
        read="database",
        served_by=("channel",),
        meaning="Changes that are still to be sent.",
    ),
    "tenten_outbox_oldest_unsent_seconds": Metric(
        kind="gauge",
        read="database",
        served_by=("channel",),
        meaning="Age of the oldest of them; 0 without any.",
    ),
    "tenten_oldest_unsettled_seconds": Metric(
        kind="gauge",
        read="database",
        served_by=("channel",),
        meaning="Age of the oldest change that headquarters has neither settled nor rejected; 0 without any.",
    ),
    "tenten_outbox_sent_total": Metric(
        kind="counter",
        served_by=("channel",),
        meaning="Records of the outbox that the broker has acknowledged; repeats count again.",
    ),
    "tenten_create_to_number_seconds": Metric(
        kind="histogram",
        buckets=_NUMBER_SECONDS,
        served_by=("channel",),
        meaning="Time from recording a new customer in this channel to its account number.",
    ),
}
"""By name: those of every process first."""
