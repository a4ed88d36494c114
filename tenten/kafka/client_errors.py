"""Errors of Kafka clients: which ones waiting cannot fix, with advice, and those that a client reports asynchronously.

Refusals that waiting cannot fix (a wrong password, a missing topic or privilege) are raised as `KafkaRefused`;
everything transient stays a `KafkaException` for which `is_transient` is true.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from structlog import get_logger

from tenten.runtime.errors import KafkaRefused

log = get_logger(__name__)

RESOLVED_SECONDS: Final = 60.0
"""An error that has not recurred for this long is considered resolved; its next occurrence is logged again. librdkafka
repeats an ongoing error about twice a minute."""

_REFUSALS: Final[Mapping[int, str]] = {
    KafkaError._AUTHENTICATION: "Kafka refuses the user or password: check sasl.username and sasl.password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Kafka refuses the user or password: check sasl.username and sasl.password",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "Kafka does not allow this user the topic: grant it the privilege",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "Kafka does not allow this user the consumer group: grant it the privilege",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Kafka does not allow this user this operation: grant it the privilege, "
    "which for a producer is WRITE on the topics that it writes",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Kafka does not allow this user the transactional id: grant it",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "A topic does not exist: run `tenten topics apply`",
    KafkaError._UNKNOWN_TOPIC: "A topic does not exist: run `tenten topics apply`",
    KafkaError.UNKNOWN_TOPIC_ID: "A topic was deleted: run `tenten topics apply`, then start again",
    KafkaError.TOPIC_EXCEPTION: "A topic name is not allowed by Kafka: check the prefix in tenten.toml",
    KafkaError.MSG_SIZE_TOO_LARGE: "A record is larger than its topic allows: raise max.message.bytes of the topic, or "
    "message.max.bytes under [kafka] in tenten.toml",
    KafkaError._INVALID_ARG: "Kafka's client refuses a property of [kafka] in tenten.toml",
}

_last_reported_at: dict[int, float] = {}


def log_kafka_error(error: KafkaError) -> None:
    """Log an error that a client reports asynchronously, once per outage and code."""
    code, now = error.code(), time.monotonic()
    if now - _last_reported_at.get(code, -math.inf) > RESOLVED_SECONDS:
        log.warning("kafka_error", code=error.name(), advice=_REFUSALS.get(code, "waiting for the broker to return"))
    _last_reported_at[code] = now


class ErrorListener:
    """Collects asynchronous client errors (`error_cb`; the client calls it while it is polled) and logs them.

    Authentication failures surface only here; the failing call itself just times out.
    """

    def __init__(self, report: Callable[[KafkaError], None] = log_kafka_error) -> None:
        self._report = report
        self.last: KafkaError | None = None
        """The newest error that names a cause."""

    def __call__(self, error: KafkaError) -> None:
        self._report(error)
        # "All brokers are down" only summarises the errors before it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error

    def check(self) -> None:
        """Raises: `KafkaRefused` when the newest error is a refusal."""
        refusal = None if self.last is None else refusal_of(KafkaException(self.last))
        if refusal is not None:
            raise refusal


def refusal_of(error: KafkaException, about: str = "") -> KafkaRefused | None:
    """The refusal behind a Kafka error; None when waiting may fix it. `about` names the topic or resource."""
    kafka_error = error.args[0] if error.args else None
    if not isinstance(kafka_error, KafkaError) or kafka_error.code() not in _REFUSALS:
        return None
    detail = ": ".join(filter(None, (about, kafka_error.str())))
    return KafkaRefused(f"{_REFUSALS[kafka_error.code()]} ({detail})")


def call_kafka(call: Callable[[], Any], about: str = "") -> Any:
    """Return the result of the call. Raises: `KafkaRefused` in place of an error that waiting cannot fix."""
    try:
        return call()
    except KafkaException as error:
        refusal = refusal_of(error, about)
        if refusal is not None:
            raise refusal from error
        raise
