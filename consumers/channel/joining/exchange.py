"""The exchange with headquarters: a request on `joins`, an answer in the channel's record on `channel-settings`."""

import hmac
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tenten.avro.wire import Unreadable, WriterSchemas, contract, encode
from tenten.consumers.channel.joining.pending_key import PendingKey
from tenten.identity.join_proof import answer_mac, request_mac, token_id, verifier
from tenten.identity.keys import record_key
from tenten.identity.token import Token
from tenten.kafka.assigned_reader import AssignedReader
from tenten.kafka.client_config import REPEATABLE, REQUEST_SECONDS, producer_configuration
from tenten.kafka.client_errors import ErrorListener, refusal_of
from tenten.kafka.offsets import earliest_offsets
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import value_headers, writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.errors import JoinRefused
from tenten.runtime.failpoints import failpoint
from tenten.runtime.host import this_host
from tenten.runtime.settings import Settings
from tenten.schemas.messages import ChannelSettings, JoinAnswer, JoinRequest, channel_settings_from_avro, to_avro
from tenten.schemas.topics import CHANNEL_SETTINGS, JOINS
from tenten.sql.channel_settings import RecordPosition

ANSWER_SECONDS: Final = 60.0
"""How long an answer is awaited, by default."""

_REPEAT_SECONDS: Final = 15.0
"""After this time without an answer the request is sent again: headquarters may have been restored meanwhile."""

_LIMITS: Final = BatchLimits(records_max=1_000)

JOINED: Final = "joined"


class Accepted(NamedTuple):
    """The settings of a channel whose key headquarters has accepted, and their record."""

    settings: ChannelSettings
    position: RecordPosition


def ask_to_join(settings: Settings, token: Token, key: PendingKey, seconds_max: float, stop: Event) -> Accepted:
    """Ask headquarters to accept the key; the settings of the channel, once it has. Idempotent.

    Raises: `JoinRefused` when headquarters refuses it, has not answered after `seconds_max`, or `stop` was set;
    `KafkaRefused`; `KafkaException`.
    """
    topics = [settings.topic(topic) for topic in (JOINS, CHANNEL_SETTINGS)]
    info = topic_ids(settings, topics)[topics[1]]
    partition = partition_of(token.channel_id, info.partitions)
    begin = earliest_offsets(settings, topics[1], info.partitions)[partition]
    writers, proves = writer_schemas(settings), answer_check(token, key)
    request = _request(token, key)
    give_up_at = time.monotonic() + seconds_max
    repeat_at = 0.0
    with AssignedReader(settings, topics[1], settings.channel_group(token.channel_id), {partition: begin}) as reader:
        while time.monotonic() < give_up_at and not stop.is_set():
            if time.monotonic() >= repeat_at:
                _send(settings, request)
                failpoint("join.after_request")
                repeat_at = time.monotonic() + _REPEAT_SECONDS
            for offset, found in _settings_of(reader, token.channel_id, writers):
                answer = next(filter(proves, found.joins), None)
                if answer is not None and answer.outcome == JOINED:
                    return Accepted(found, RecordPosition(info.topic_id, offset))
                if answer is not None:
                    raise JoinRefused(answer.text)
    if stop.is_set():
        raise JoinRefused("interrupted before headquarters has answered: run this command again, it continues")
    raise JoinRefused(
        f"headquarters has not answered within {seconds_max:.0f} s: `tenten headquarters run` must be running there, "
        f"and it must have the channel {token.channel_id}; run this command again, it continues"
    )


def _request(token: Token, key: PendingKey) -> JoinRequest:
    host = this_host()
    proof = request_mac(verifier(token.secret), token.channel_id, key.pair.public_key, key.nonce, host)
    return JoinRequest(
        channel_id=token.channel_id,
        token_id=token_id(token.secret),
        public_key=key.pair.public_key,
        nonce=key.nonce,
        host=host,
        mac=proof,
    )


def answer_check(token: Token, key: PendingKey) -> Callable[[JoinAnswer], bool]:
    """Whether an answer is headquarters' answer to this attempt: nobody else can compute its proof."""
    shared = record_key(key.pair.private_key, token.headquarters_public_key)

    def proves(answer: JoinAnswer) -> bool:
        if answer.nonce != key.nonce:
            return False
        expected = answer_mac(shared, token.channel_id, answer.nonce, answer.outcome, answer.text)
        return hmac.compare_digest(expected.hex(), answer.mac)

    return proves


def _send(settings: Settings, request: JoinRequest) -> None:
    """Write the request, and wait for the acknowledgement. Raises: `KafkaRefused`, `KafkaException`."""
    errors = ErrorListener(report=lambda _: None)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    # A request is repeated until it is answered.
    producer = Producer(producer_configuration(settings, **REPEATABLE, error_cb=errors))
    value = encode(contract(JOINS.value), to_avro(request), value_headers(settings)[JOINS.value])
    producer.produce(settings.topic(JOINS), value, request.channel_id, on_delivery=delivered)
    left = producer.flush(REQUEST_SECONDS)
    errors.check()
    for failure in failures:
        raise refusal_of(KafkaException(failure), settings.topic(JOINS)) or KafkaException(failure)
    if left:
        producer.purge()
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s")


def _settings_of(
    reader: AssignedReader, channel_id: str, writers: WriterSchemas
) -> Iterator[tuple[int, ChannelSettings]]:
    """The readable records of the channel among the next ones, each with its offset."""
    records = reader.read(_LIMITS)
    for key, value, offset in zip(records.keys, records.values, records.offsets, strict=True):
        if key != channel_id.encode() or value is None:
            continue
        try:
            found = channel_settings_from_avro(writers.decode(value, contract(CHANNEL_SETTINGS.value)))
        except Unreadable:
            continue
        yield offset, found
