"""Configurations of Kafka clients: first the properties that the guarantees depend on, then those of the user."""

from collections.abc import Mapping
from typing import Any, Final

from tenten.kafka.client_errors import log_kafka_error
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings

REQUEST_SECONDS: Final = 10.0
"""The timeout of a request to the brokers."""

_CLIENT: Final[dict[str, Any]] = {
    # Send small requests immediately; the client does the batching.
    "socket.nagle.disable": True,
    # Reconnect within a second without flooding an unavailable broker.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
}

_CONSUMER: Final[dict[str, Any]] = {
    # Records of aborted transactions are skipped: only what headquarters committed is read.
    "isolation.level": "read_committed",
    # Offsets are committed with the outputs, or stored with the rows, never in the background.
    "enable.auto.commit": False,
    # Latency: fetch as soon as the local queue has room, without collecting at the broker; poll a quiet topic twice a
    # second.
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 500,
    "fetch.min.bytes": 1,
    # Throughput within bounded memory: 64 MiB of fetched records at most.
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 65_536,
    "fetch.message.max.bytes": 4_194_304,
}

_PRODUCER: Final[dict[str, Any]] = {
    # No duplicate and no reordering by a retry within this producer's life.
    "enable.idempotence": True,
    "acks": "all",
    # The same key goes to the same partition as with the Java clients, whatever tool writes it.
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    # Records are collected this long, or until a flush or a commit: few and large requests cost the broker a fraction
    # of many small ones.
    "linger.ms": 5,
    # Bounded memory: the caller waits for room.
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 131_072,
    # The topic limits the size of a record, after compression; a record that another writer compressed well must fit
    # among the dead letters. Must stay below the queue's size: a larger record would wait for room for ever.
    "message.max.bytes": 67_108_864,
}

REPEATABLE: Final[dict[str, Any]] = {
    # Its number from the broker would cost an idempotent producer half a second before its first record.
    "enable.idempotence": False,
}
"""For `producer_configuration`: a producer of a few records, each of which may be there twice."""

_REQUIRED: Final = frozenset(
    {
        "isolation.level",
        "enable.auto.commit",
        "auto.offset.reset",
        "enable.idempotence",
        "partitioner",
        "acks",
        "group.id",
        "transactional.id",
    }
)
"""Properties that a user may not set: a guarantee depends on each."""


class _NoLog:
    """Drops librdkafka's own log lines: they repeat once a second what `error_cb` reports."""

    def log(self, *_: Any, **__: Any) -> None: ...


_no_log: Final = _NoLog()


def consumer_configuration(settings: Settings, **own: Any) -> dict[str, Any]:
    """The configuration of a consumer: ours, then `own`, then the user's.

    Raises: `SettingsError` when no broker is configured or the user sets a property that a guarantee rests on.
    """
    return client_configuration(settings, _CONSUMER | own)


def producer_configuration(settings: Settings, **own: Any) -> dict[str, Any]:
    """The configuration of an idempotent producer: ours, then `own`, then the user's. Raises: `SettingsError`."""
    return client_configuration(settings, _PRODUCER | own)


def client_configuration(settings: Settings, own: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of any client. Raises: `SettingsError`."""
    if not settings.kafka.get("bootstrap.servers"):
        raise SettingsError(
            'no Kafka broker is configured: set KAFKA_BOOTSTRAP_SERVERS or [kafka] "bootstrap.servers" in tenten.toml, '
            "or run `tenten local start`"
        )
    fixed = sorted(_REQUIRED & settings.kafka.keys())
    if fixed:
        raise SettingsError(
            f"[kafka] {', '.join(fixed)}: tenten's guarantees need its own value; remove it from tenten.toml"
        )
    return {"log_level": 4, "logger": _no_log, "error_cb": log_kafka_error, **_CLIENT, **own, **settings.kafka}
