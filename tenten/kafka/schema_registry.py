"""Exchange of Avro schemas: through the `schemas` topic, or through a registry if one is configured.

Without a registry headquarters writes the schemas to the compacted `schemas` topic when it starts, and nobody else may;
a reader reads that topic to its end before it treats a fingerprint as unknown. A schema found there is used only if
its key is its fingerprint and decoding with it is harmless. With a registry (Confluent's HTTP interface, which Apicurio
and Karapace implement too) writers register at start and values carry the registry's id.
Source: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from structlog import get_logger

from tenten.avro.foreign_schemas import SCHEMA_BYTES_MAX, SchemaRefused, read_schema
from tenten.avro.wire import CONTRACTS, AvroSchema, Json, WriterSchemas, avro_schema, confluent_header, contracts
from tenten.kafka.client_config import REPEATABLE, REQUEST_SECONDS, consumer_configuration, producer_configuration
from tenten.kafka.client_errors import call_kafka, refusal_of
from tenten.kafka.records import read_until
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import RegistryRefused, RegistryUnavailable
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ALL, SCHEMAS

log = get_logger(__name__)

SCHEMAS_MAX: Final = 1_000
"""The most schemas of the topic that a reader remembers: far more than there are releases."""

_RESPONSE_BYTES_MAX: Final = 4 * SCHEMA_BYTES_MAX
_WARN_SECONDS: Final = 60.0

_SUBJECTS: Final = {topic.value: topic for topic in ALL if topic.value in CONTRACTS}


def publish_schemas(settings: Settings) -> dict[str, bytes]:
    """Publish this release's schemas, as headquarters; return the header for each contract's values, by contract name.

    Idempotent. Raises: `RegistryUnavailable`, `RegistryRefused`, `KafkaRefused`, `KafkaException`.
    """
    if settings.schema_registry_url is None:
        _write_to_topic(settings)
    return value_headers(settings)


def value_headers(settings: Settings) -> dict[str, bytes]:
    """The header for each contract's values, by contract name. Registers the schemas if a registry is configured.

    Writes nothing to the topic `schemas`: a store may not. Raises: `RegistryUnavailable`, `RegistryRefused`.
    """
    if settings.schema_registry_url is None:
        return {schema.name: schema.header for schema in contracts()}
    registry = Registry(settings.schema_registry_url)
    ids = {schema.name: registry.register(_subject(settings, schema), schema) for schema in contracts()}
    return {name: confluent_header(schema_id) for name, schema_id in ids.items()}


def _write_to_topic(settings: Settings) -> None:
    """Write the schemas to their topic; wait for the acknowledgements."""
    topic = settings.topic(SCHEMAS)
    # A producer would wait half a minute for a topic that does not exist, and without limit with a wrong password.
    topic_ids(settings, [topic])
    producer = Producer(producer_configuration(settings, **REPEATABLE))
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for schema in contracts():
        producer.produce(topic, key=schema.fingerprint.hex(), value=json.dumps(schema.json), on_delivery=delivered)
    if producer.flush(REQUEST_SECONDS):
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s")
    for failure in failures:
        raise refusal_of(KafkaException(failure), topic) or KafkaException(failure)


def _subject(settings: Settings, schema: AvroSchema) -> str:
    return f"{settings.topic(_SUBJECTS[schema.name])}-value"


def writer_schemas(settings: Settings) -> WriterSchemas:
    """The schemas of all writers: this release's, those on the `schemas` topic, and the registry's."""
    on_topic = SchemasTopic(settings)
    if settings.schema_registry_url is None:
        return WriterSchemas(by_fingerprint=on_topic.find)
    return WriterSchemas(by_fingerprint=on_topic.find, by_id=Registry(settings.schema_registry_url).schema)


class SchemasTopic:
    """The `schemas` topic as a table by fingerprint; an unknown fingerprint reads the topic to its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topic(SCHEMAS)
        self._known: dict[str, Mapping[str, Any]] = {}
        self._consumer: Consumer | None = None
        self._next = {0: 0}
        self._ignored = IgnoredSchemas("topic")

    def find(self, fingerprint: bytes) -> Mapping[str, Any] | None:
        """The schema with this fingerprint; None when no writer has published it. May block for two requests.

        Raises: `KafkaException` when no broker answers.
        """
        if fingerprint.hex() not in self._known:
            self._read_to_end()
        return self._known.get(fingerprint.hex())

    def _read_to_end(self) -> None:
        if self._consumer is None:
            own = {"group.id": self._settings.reader_group(), "auto.offset.reset": "earliest"}
            self._consumer = Consumer(consumer_configuration(self._settings, **own, **{"enable.partition.eof": True}))
            self._consumer.assign([TopicPartition(self._topic, 0, self._next[0])])
        consumer = self._consumer
        _, end = call_kafka(
            lambda: consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=REQUEST_SECONDS)
        )
        for message in read_until(consumer, self._next, {0: end}):
            self._remember(message.key(), message.value())

    def _remember(self, key: bytes | None, value: bytes | None) -> None:
        """Store a schema; ignore one that is not to be believed, whose records become dead letters."""
        try:
            schema = read_schema(value or b"")
            fingerprint = (key or b"").decode(errors="replace")
            if _fingerprint_of(schema) != fingerprint:
                raise SchemaRefused("has another fingerprint than its key")
            if len(self._known) >= SCHEMAS_MAX and fingerprint not in self._known:
                raise SchemaRefused(f"is one of more than {SCHEMAS_MAX}")
        except SchemaRefused as refusal:
            self._ignored.count(refusal)
        else:
            self._known[fingerprint] = schema


def _fingerprint_of(schema: Json) -> str:
    """The fingerprint of a schema, hexadecimal. Raises: `SchemaRefused` if it is not valid."""
    try:
        return avro_schema(schema).fingerprint.hex()
    except Exception as error:  # fastavro raises many types
        raise SchemaRefused("is not a valid schema") from error


class IgnoredSchemas:
    """Counts the schemas that are ignored, and logs it, at most once a minute."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0
        self._logged_at = -_WARN_SECONDS

    def count(self, refusal: SchemaRefused) -> None:
        """Count one more, which was refused for this reason."""
        self._count += 1
        now = time.monotonic()
        if now >= self._logged_at + _WARN_SECONDS:
            self._logged_at = now
            log.warning("schema_ignored", source=self._source, reason=str(refusal), ignored=self._count)


class Registry:
    """A schema registry over HTTP. Its address may contain user and password."""

    def __init__(self, url: str) -> None:
        self._ignored = IgnoredSchemas("registry")
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        self._base = urllib.parse.urlunsplit(
            (parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path.rstrip("/"), "", "")
        )
        self._headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        if parts.username is not None:
            credentials = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The id of this schema under the subject; registers a new schema.

        Raises: `RegistryUnavailable`; `RegistryRefused` when the schema is not compatible.
        """
        body = {"schemaType": "AVRO", "schema": json.dumps(schema.json)}
        return int(self._call("POST", f"/subjects/{urllib.parse.quote(subject, safe='')}/versions", body)["id"])

    def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        """The schema of that id; None when there is none, or one that is not to be believed.

        Raises: `RegistryUnavailable`, `RegistryRefused`.
        """
        try:
            answer = self._call("GET", f"/schemas/ids/{schema_id}")
        except RegistryRefused as refusal:
            if refusal.status == 404:
                return None
            raise
        try:
            return read_schema(answer["schema"])
        except SchemaRefused as refused:
            self._ignored.count(refused)
            return None

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 -- the settings allow http and https only
            self._base + path, data=data, headers=self._headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as response:  # noqa: S310 -- as above
                text = response.read(_RESPONSE_BYTES_MAX + 1)
                if len(text) > _RESPONSE_BYTES_MAX:
                    # As if the schema did not exist: a registry that has it will not change its mind.
                    raise RegistryRefused(f"the answer of the schema registry to {method} {path} is too large", 404)
                return json.loads(text)
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise RegistryUnavailable(f"the schema registry answers {error.code}") from error
            text = error.read(500).decode(errors="replace")
            refusal = f"the schema registry refuses {method} {path}: {error.code} {text}"
            raise RegistryRefused(refusal, error.code) from error
        except (OSError, ValueError) as error:
            raise RegistryUnavailable(f"the schema registry does not answer: {error}") from error
