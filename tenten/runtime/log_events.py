"""Every log event of the product: its level, its fields and its meaning. A test compares this catalogue with the code.

`channel` is the channel's name, or `headquarters`. `error` is the type of an exception, `code` its code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """A log event; `meaning` says when it is logged, and what to do if anything."""

    level: Literal["info", "warning", "error"]
    fields: tuple[str, ...]
    meaning: str


LOG_EVENTS: Final[Mapping[str, LogEvent]] = {
    # Every worker.
    "retry_started": LogEvent(
        level="warning",
        fields=("process", "channel", "error", "code"),
        meaning="A transient failure: the work is retried until it succeeds. Logged once per outage.",
    ),
    "disk_full": LogEvent(
        level="warning",
        fields=("process", "channel", "code", "advice"),
        meaning="No space is left on the disk of the database: make room. The work is retried until it succeeds; "
        "nothing is lost. Logged once per outage, in place of `retry_started`.",
    ),
    "retry_recovered": LogEvent(
        level="info",
        fields=("process", "channel"),
        meaning="The work succeeds again; ends `retry_started` and `disk_full`.",
    ),
    "kafka_error": LogEvent(
        level="warning",
        fields=("code", "advice"),
        meaning="A Kafka client reports an error. Logged again only after a minute without it.",
    ),
    # Every process with `--http`.
    "http_started": LogEvent(
        level="info",
        fields=("address", "tls"),
        meaning="HTTP is served at this address.",
    ),
    # The dashboard.
    "database_unavailable": LogEvent(
        level="warning",
        fields=("error", "code"),
        meaning="Headquarters' database does not answer the dashboard, which shows that. Logged once per outage.",
    ),
    "snapshot_failed": LogEvent(
        level="error",
        fields=("error", "code", "at"),
        meaning="The dashboard could not read the state, by a bug: its pages are not updated by themselves until it "
        "can. The log has the traceback.",
    ),
    "http_failed": LogEvent(
        level="error",
        fields=("error", "code", "at"),
        meaning="HTTP is no longer served; the work of the process goes on. Start the process again.",
    ),
    "screen_not_following": LogEvent(
        level="warning",
        fields=("error",),
        meaning="The pages of the store's screen are not updated by themselves while its database does not answer. "
        "Logged once per outage.",
    ),
    "http_request_failed": LogEvent(
        level="error",
        fields=("path", "error", "code", "at"),
        meaning="A request ended with a bug of this program, and was answered 500.",
    ),
    "tracing_not_installed": LogEvent(
        level="warning",
        fields=("module",),
        meaning="A variable of OpenTelemetry asks for spans, but the extra `otel` is not installed: traces are carried "
        "on, and none is exported.",
    ),
    "metrics_not_read": LogEvent(
        level="warning",
        fields=("about", "error", "code"),
        meaning="`/metrics` was asked, and the database or the broker (`about`) did not answer: what is read there is "
        "absent, and `tenten_scrape_problem` is 1. Logged once per outage.",
    ),
    # Both workers of headquarters.
    "slot_acquired": LogEvent(
        level="info", fields=("slot",), meaning="The worker reserved this slot, which is part of its transactional id."
    ),
    "settings_stored": LogEvent(
        level="info",
        fields=("channels", "legal_entities"),
        meaning="The database never had settings, and has taken the legal entities and channels of tenten.toml.",
    ),
    "settings_differ": LogEvent(
        level="warning",
        fields=("added", "changed"),
        meaning="Legal entities or channels of tenten.toml are missing in the database or have other settings there, "
        "which count: see `tenten settings diff tenten.toml`. Names of at most 20 settings each.",
    ),
    "settings_reloaded": LogEvent(
        level="info",
        fields=("channels", "legal_entities"),
        meaning="Headquarters' settings were changed, and this worker uses the new ones.",
    ),
    "channel_settings_published": LogEvent(
        level="info",
        fields=("channels", "removed"),
        meaning="The settings of this many channels have changed, and are published; `removed`: the removed channels.",
    ),
    "store_joined": LogEvent(
        level="info",
        fields=("channel", "kid", "host"),
        meaning="A store has joined with a token: from now on headquarters believes records with this key.",
    ),
    "join_with_another_key": LogEvent(
        level="error",
        fields=("channel", "token", "host", "refused"),
        meaning="Another machine has a token that was used: one of the two is not the store. Where it is the one that "
        "has joined, `tenten channel suspend` and `rotate-key` end that. `refused`: how often this has happened.",
    ),
    "join_requests_refused": LogEvent(
        level="warning",
        fields=("unreadable", "without_proof"),
        meaning="So many records of `joins` since the last such event were not valid requests, or did not prove a "
        "token. They have changed nothing. At most once a minute.",
    ),
    "joins_not_read": LogEvent(
        level="warning",
        fields=("error", "code"),
        meaning="Requests of stores to join cannot be read or judged; retried. At most once a minute.",
    ),
    "settings_not_published": LogEvent(
        level="warning",
        fields=("code", "remedy"),
        meaning="Kafka refuses the settings of channels, which keep those that they have. Retried each minute.",
    ),
    "channel_settings_received": LogEvent(
        level="info",
        fields=("channel", "version"),
        meaning="The channel uses new settings from headquarters.",
    ),
    "channel_settings_missing": LogEvent(
        level="warning",
        fields=("channel",),
        meaning="Neither headquarters nor tenten.toml has told the channel its legal entity, for which it waits. "
        "`tenten settings show` at headquarters must list the channel.",
    ),
    "channel_settings_differ": LogEvent(
        level="warning",
        fields=("channel", "settings"),
        meaning="Headquarters has other values for these settings of tenten.toml, and the channel uses those: delete "
        "them from tenten.toml. At most 20 names.",
    ),
    "channel_settings_removed": LogEvent(
        level="warning",
        fields=("channel",),
        meaning="Headquarters has removed the channel. It keeps its settings; headquarters holds its later changes.",
    ),
    "channel_settings_unreadable": LogEvent(
        level="warning",
        fields=("channel", "reason"),
        meaning="The settings that headquarters has published cannot be read; the channel keeps those that it has. "
        "`unknown_schema`: upgrade the channel.",
    ),
    "channel_settings_failed": LogEvent(
        level="warning",
        fields=("channel", "topic", "error", "code"),
        meaning="The settings cannot be read or stored, so the channel keeps those that it has; retried. Logged once "
        "per outage. `UNKNOWN_TOPIC_OR_PART`: run `tenten topics apply`. `TOPIC_AUTHORIZATION_FAILED`: grant the store "
        "`Read` on the topic.",
    ),
    "partitions_assigned": LogEvent(
        level="info", fields=("session", "partitions"), meaning="The consumer group gave partitions to this worker."
    ),
    "partitions_revoked": LogEvent(
        level="info", fields=("session", "partitions"), meaning="The consumer group took partitions from this worker."
    ),
    "transaction_failed": LogEvent(
        level="warning",
        fields=("session", "code", "fatal"),
        meaning="A Kafka transaction was aborted; its batch is read again. `fatal`: the producer is replaced.",
    ),
    "group_rejoined": LogEvent(
        level="warning",
        fields=("session",),
        meaning="The topic does not have the position at which the worker was reading, or its group has ended its "
        "membership or has not answered for 30 seconds; it joins its group again with a new client and reads from "
        "where the database says.",
    ),
    "group_offsets_moved": LogEvent(
        level="warning",
        fields=("topic", "partitions"),
        meaning="The committed offsets of these partitions are ahead of the database, although it knows the newest "
        "outputs of headquarters: somebody has moved the offsets. Reading begins at the database's positions, so "
        "nothing is skipped.",
    ),
    "topic_recreated": LogEvent(
        level="warning",
        fields=("topic",),
        meaning="The topic was deleted and created again. Headquarters reads it from its beginning; stores send again "
        "whatever has no answer.",
    ),
    "records_lost": LogEvent(
        level="warning",
        fields=("topic", "partitions"),
        meaning="The topic no longer has the records at which headquarters would have continued: they have expired, or "
        "the brokers have lost them. Reading begins at the beginning of these partitions; stores send again whatever "
        "has no answer.",
    ),
    # Headquarters: customers.
    "verified": LogEvent(
        level="info",
        fields=("customers", "missing", "surplus", "different"),
        meaning="Database and topic were compared. Customers that differ are sent again.",
    ),
    "verification_failed": LogEvent(
        level="warning",
        fields=("error", "code"),
        meaning="The scheduled comparison of database and topic failed; it is repeated later.",
    ),
    "recovered": LogEvent(
        level="info",
        fields=("customers", "erased", "events", "sales_orders", "repeated"),
        meaning="`tenten headquarters recover` has taken back what a restored database had lost. `repeated`: offsets "
        "of async-customers that are read again.",
    ),
    "republished": LogEvent(
        level="info",
        fields=("topic", "customers", "erased"),
        meaning="`tenten headquarters republish` has sent every customer again, and declared the topic complete.",
    ),
    "batch_synchronized": LogEvent(
        level="info",
        fields=("records", "snapshots", "individual_events", "dead_letters", "next_offsets"),
        meaning="A batch of customer events was committed. `individual_events` could not use the bulk path.",
    ),
    "batch_rejected_by_database": LogEvent(
        level="warning",
        fields=("events", "error", "code"),
        meaning="The database rejected a batch of customer events; its halves are tried until the events that cause "
        "it are known.",
    ),
    "event_id_conflicted": LogEvent(
        level="warning",
        fields=("event_id", "channel", "first_channel"),
        meaning="A customer event has the id of another event: that of another channel or customer, or one with other "
        "content. It was rejected, and the first one stands. Two stores derive ids from the same data, or a store was "
        "restored and gives its ids again: let every event have an id of its own.",
    ),
    "batch_halved": LogEvent(
        level="warning",
        fields=("session", "records_max"),
        meaning="A batch failed slowly; it is repeated in batches of at most this many records, which grow again.",
    ),
    "held_customers_touched": LogEvent(
        level="info",
        fields=("customers",),
        meaning="The cause for which events of these customers were held may be gone: headquarters sent itself a touch "
        "for each, so that they are judged.",
    ),
    "held_events_limit_reached": LogEvent(
        level="warning",
        fields=("limit", "channel"),
        meaning="So many events of this channel, or of all, are held that further ones are not stored: their stores "
        "send them again once a day. Logged once for each limit and channel.",
    ),
    "schema_ignored": LogEvent(
        level="warning",
        fields=("source", "reason", "ignored"),
        meaning="A schema in the topic `schemas` or in the registry is not used, because its fingerprint is another or "
        "reading with it could be endless: its records become dead letters. `ignored` counts such schemas since the "
        "process started. Logged at most once a minute.",
    ),
    "small_batch_refused": LogEvent(
        level="info",
        fields=("records", "code"),
        meaning="The database did not accept a small batch of new customers as it is, for example because one of them "
        "exists already; its events are handled one by one.",
    ),
    "number_sequence_nearly_used_up": LogEvent(
        level="warning",
        fields=("legal_entity", "next", "last"),
        meaning="Few account numbers are left: give the legal entity a longer number format.",
    ),
    # Headquarters: transactions.
    "transactions_ingested": LogEvent(
        level="info",
        fields=("sales", "ends_of_days", "forwarded", "dead_letters", "next_offsets"),
        meaning="A batch of orders, sales and ends of day was committed. `forwarded` are the embedded customer events "
        "that headquarters did not know.",
    ),
    "transactions_rejected_by_database": LogEvent(
        level="warning",
        fields=("transactions", "error"),
        meaning="The database rejected a batch of transactions; its halves are tried until the transactions that "
        "cause it are known.",
    ),
    "transactions_of_new_channels_accepted": LogEvent(
        level="info",
        fields=("transactions",),
        meaning="Sales of channels that headquarters did not know before now wait for their customers, or are rejected "
        "if they name another legal entity than their channel's.",
    ),
    "transactions_released": LogEvent(
        level="info",
        fields=("transactions", "statements"),
        meaning="Waiting transactions were released, and statements updated.",
    ),
    "release_pass_rejected_by_database": LogEvent(
        level="warning",
        fields=("code",),
        meaning="The database rejected a release pass; its transactions are released one at a time.",
    ),
    "transaction_waits_too_long": LogEvent(
        level="warning",
        fields=("channel", "transaction_id", "waiting_seconds"),
        meaning="A transaction waits for its customer for longer than `waiting_seconds_max`.",
    ),
    "transaction_replies_sent": LogEvent(
        level="info", fields=("replies",), meaning="Replies to transactions were sent."
    ),
    # Channel: relay.
    "relay_recovered": LogEvent(level="info", fields=("channel",), meaning="The relay recovered; ends `relay_failed`."),
    "relay_failed": LogEvent(
        level="warning",
        fields=("channel", "error", "code", "advice"),
        meaning="The relay cannot send and retries; `advice` says what to do.",
    ),
    "broker_unavailable": LogEvent(
        level="warning", fields=("channel", "rows"), meaning="The broker has not acknowledged a batch for seconds."
    ),
    "relay_resumed": LogEvent(
        level="info", fields=("channel", "waited_seconds"), meaning="The broker acknowledged the batch."
    ),
    "unsigned_records_accepted": LogEvent(
        level="warning",
        fields=("channel", "topic"),
        meaning="A channel that never had a key does not sign its records, so anybody could write them in its name. "
        "Let the store join, then set `authentication` to require. Once per channel and process.",
    ),
    "unknown_channel_not_suspended": LogEvent(
        level="warning",
        fields=("channel",),
        meaning="A channel that was removed from headquarters' settings, and still has a key, sends dead letters only.",
    ),
    "channel_suspended": LogEvent(
        level="error",
        fields=("channel", "dead_letters"),
        meaning="A channel has sent so many records in a row that are dead letters that headquarters has suspended it. "
        "Its store keeps its changes, and sends them again after `tenten channel resume NAME`.",
    ),
    "suspension_received": LogEvent(
        level="warning",
        fields=("channel", "reason"),
        meaning="Headquarters has suspended the channel: its changes are kept, and none is sent until it is resumed.",
    ),
    "suspension_ended": LogEvent(
        level="info",
        fields=("channel",),
        meaning="The suspension has ended: the relay sends what was kept, and again what was sent meanwhile.",
    ),
    "acceptance_taken_back": LogEvent(
        level="warning",
        fields=("count", "channels"),
        meaning="Headquarters' database lacked keys or suspensions of these channels that it had published: it was "
        "restored from a backup. It has them again, and keys that they had replaced are revoked.",
    ),
    "key_not_accepted": LogEvent(
        level="error",
        fields=("channel", "kid", "accepted"),
        meaning="Headquarters accepts another key than the store's (`kid`), or none: its changes are kept, and none is "
        "sent. Let the store join again, with a token of `tenten channel enroll NAME` or `rotate-key NAME`.",
    ),
    "signing_changed": LogEvent(
        level="info",
        fields=("channel", "kid"),
        meaning="The relay has another key, or headquarters had not accepted its records for a time; unsettled rows "
        "are sent again.",
    ),
    "outbox_requeued": LogEvent(
        level="info", fields=("rows",), meaning="Outbox rows without a reply were queued to be sent again."
    ),
    "outbox_pruned": LogEvent(
        level="info", fields=("rows",), meaning="Settled outbox rows were deleted after their retention."
    ),
    "heartbeat_failed": LogEvent(
        level="warning",
        fields=("channel", "error", "code"),
        meaning="The state of the channel could not be read or sent, so headquarters hears nothing from it; retried "
        "every minute. Logged once per outage. `TOPIC_AUTHORIZATION_FAILED`: grant the store `Write` on "
        "`channel-status`.",
    ),
    "heartbeat_refused": LogEvent(
        level="warning",
        fields=("channel", "kid"),
        meaning="A heartbeat in the name of this channel is not signed with its valid key, and was ignored. Either the "
        "store has another key, or somebody else can write to `channel-status`. Once for each channel and process, "
        "until none has come for ten minutes.",
    ),
    "heartbeat_topic_missing": LogEvent(
        level="warning",
        fields=("channel", "topic"),
        meaning="Headquarters has not created the topic of heartbeats yet: it is looked for every minute. Upgrade "
        "headquarters, or run `tenten topics apply`.",
    ),
    # Channel: distribution.
    "batch_applied": LogEvent(
        level="info",
        fields=(
            "channel",
            "topic",
            "records",
            "inserted",
            "updated",
            "edited",
            "removed",
            "next_offsets",
            "seconds",
        ),
        meaning="A batch of snapshots was committed. `edited`: written one by one, such as those with an overlay.",
    ),
    "partition_stopped": LogEvent(
        level="error",
        fields=("channel", "partition", "offset", "reason", "text"),
        meaning="A snapshot cannot be read: its partition is paused and retried, the others continue.",
    ),
    "partition_resumed": LogEvent(
        level="info",
        fields=("channel", "partition"),
        meaning="A paused partition was resumed; ends `partition_stopped`.",
    ),
    "resync_needed": LogEvent(
        level="warning",
        fields=("channel", "because"),
        meaning="The positions are unusable; a resync starts automatically.",
    ),
    "resyncing": LogEvent(
        level="info", fields=("channel", "done", "total"), meaning="Progress of a resync, in records."
    ),
    "resynced": LogEvent(
        level="info", fields=("channel", "topic", "next_offsets"), meaning="A resync is complete up to these offsets."
    ),
    "surplus_deleted": LogEvent(
        level="info",
        fields=("channel", "surplus", "customers"),
        meaning="A resync deleted this many of a channel's customers, which the topic does not have.",
    ),
    "surplus_kept": LogEvent(
        level="error",
        fields=("channel", "surplus", "customers", "topic_is_complete"),
        meaning=(
            "A resync did not find these customers of a channel in the topic and has kept them: the topic is not "
            "declared complete, or they are more than a tenth. `tenten status` names the command that leads out."
        ),
    ),
    "completeness_unknown": LogEvent(
        level="warning",
        fields=("topic", "code"),
        meaning="A channel may not read whether `customers` is complete, so it keeps customers that it would delete. "
        "Grant READ on this topic.",
    ),
    # Channel: settlement.
    "replies_settled": LogEvent(
        level="info",
        fields=("channel", "topic", "partition", "replies", "next_offset", "seconds"),
        meaning="A batch of headquarters' replies was committed.",
    ),
    "reply_unreadable": LogEvent(
        level="error",
        fields=("channel", "topic", "partition", "offset"),
        meaning="A reply cannot be read: settlement of this topic waits before it and retries every few seconds.",
    ),
    "unknown_outcome": LogEvent(
        level="warning",
        fields=("channel", "outcome"),
        meaning="A reply has an outcome or status of a later release: its event stays unsettled. Upgrade this channel. "
        "Logged once per outcome.",
    ),
    "unknown_record_type": LogEvent(
        level="warning",
        fields=("channel", "topic", "type"),
        meaning="A topic of replies has records of a later release, which are passed. Upgrade this channel. Logged "
        "once per type.",
    ),
    "reply_offset_lost": LogEvent(
        level="warning",
        fields=("channel", "topic", "next_offset"),
        meaning="Replies were deleted before this channel read them; events without a reply are sent again, and so "
        "are transactions without a final one.",
    ),
    "reply_topic_missing": LogEvent(
        level="warning",
        fields=("channel", "topic"),
        meaning="Headquarters has not created this topic yet: customer events are settled meanwhile, and the topic is "
        "looked for every minute. Upgrade headquarters, or run `tenten topics apply`.",
    ),
    # `tenten up`.
    "process_started": LogEvent(level="info", fields=("process", "pid"), meaning="A process was started."),
    "process_died": LogEvent(
        level="warning",
        fields=("process", "code", "again_in_seconds"),
        meaning="A process ended without a signal from `tenten up`; it is restarted after a pause.",
    ),
    "process_given_up": LogEvent(
        level="error",
        fields=("process", "code"),
        meaning="A process ended because its settings are wrong, and is not restarted: correct `tenten.toml`, then "
        "start `tenten up` again. The other processes continue.",
    ),
    "processes_ended": LogEvent(level="info", fields=("processes",), meaning="All processes were stopped."),
}
"""By name, in the order in which the workers appear in the documentation."""
