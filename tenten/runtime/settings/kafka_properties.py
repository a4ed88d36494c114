"""Properties of librdkafka as they are written in the `[kafka]` table."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_JAVA_ONLY: Final[Mapping[str, str]] = {
    "sasl.jaas.config": "write sasl.username and sasl.password",
    "sasl.login.callback.handler.class": "write sasl.oauthbearer.method and its related properties",
    "sasl.client.callback.handler.class": "remove it",
    "ssl.truststore.location": "write ssl.ca.location, the path of a PEM file",
    "ssl.truststore.password": "remove it; ssl.ca.location names a PEM file, which has none",
    "ssl.truststore.type": "remove it; ssl.ca.location names a PEM file",
    "ssl.truststore.certificates": "write ssl.ca.pem",
    "ssl.keystore.type": "remove it; ssl.keystore.location names a PKCS#12 file",
    "ssl.keystore.certificate.chain": "write ssl.certificate.pem",
    "ssl.keystore.key": "write ssl.key.pem",
    "ssl.protocol": "remove it",
    "ssl.enabled.protocols": "remove it",
    "key.serializer": "remove it",
    "value.serializer": "remove it",
    "key.deserializer": "remove it",
    "value.deserializer": "remove it",
    "interceptor.classes": "remove it",
    "metric.reporters": "remove it",
    "max.poll.records": "write batch_records_max in [headquarters]",
    "max.request.size": "write message.max.bytes",
    "buffer.memory": "write queue.buffering.max.kbytes",
    "fetch.max.wait.ms": "write fetch.wait.max.ms",
    "send.buffer.bytes": "write socket.send.buffer.bytes",
    "receive.buffer.bytes": "write socket.receive.buffer.bytes",
    "default.api.timeout.ms": "remove it",
    "max.block.ms": "remove it",
}
"""Properties of the Java clients that librdkafka does not have, and what to do instead.
Source: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
"""

CONNECTION_PROPERTIES: Final = (
    "bootstrap.servers",
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.endpoint.identification.algorithm",
    "client.dns.lookup",
    "broker.address.family",
)
"""How to reach Kafka: the only properties that a token may have, beside the user's name. Others could do more, such as
load a library.
"""

_SECRET_WORDS: Final = ("password", "secret", "private.key", "key.pem", "oauthbearer.config")


def is_secret(name: str) -> bool:
    """Whether the value of this property must not be shown."""
    return any(word in name for word in _SECRET_WORDS)


def kafka_properties(value: Any) -> Any:
    """The properties with dotted names, quoted in the file or not, and their values as text, as librdkafka takes them.

    Raises: `ValueError` for a property of Java clients, with its replacement.
    """
    if not isinstance(value, Mapping):
        return value
    properties = dict(flatten(value))
    for name in properties:
        if name in _JAVA_ONLY:
            raise ValueError(f"{name} is a property of Java clients only: {_JAVA_ONLY[name]}")
    return properties


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and texts of a table that may have nested tables."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)
