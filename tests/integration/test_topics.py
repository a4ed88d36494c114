"""Creation and configuration of topics on a real broker."""

import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from pydantic import ValidationError

from tenten.kafka import topics_admin
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topics_admin import TopicChange, admin_client, apply_topics, topic_ids
from tenten.runtime.error_codes import is_transient
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ALL, ASYNC_CUSTOMERS, SCHEMAS


def _settings(bootstrap_servers: str, prefix: str, partitions: int | None = None) -> Settings:
    configured = {} if partitions is None else {"partitions": partitions}
    return Settings.model_validate({"kafka": {"bootstrap.servers": bootstrap_servers}, "prefix": prefix, **configured})


def test_keyed_topics_get_the_configured_number_of_partitions(bootstrap_servers: str, prefix: str) -> None:
    """Every keyed topic has `partitions` partitions; topics with a fixed count keep theirs."""
    # given
    settings = _settings(bootstrap_servers, prefix, partitions=2)

    # when
    changes = apply_topics(settings)

    # then
    assert {change.action for change in changes} == {"create"}
    found = topic_ids(settings, map(settings.topic, ALL))
    assert {name: info.partitions for name, info in found.items()} == {
        settings.topic(topic): 1 if topic.partitions == 1 else 2 for topic in ALL
    }
    assert found[settings.topic(ASYNC_CUSTOMERS)].partitions == 2
    assert found[settings.topic(SCHEMAS)].partitions == 1
    # A broker refuses times that are more than an hour ahead, unless it writes its own.
    assert refused_when_ahead(settings, hours=2) == {
        settings.topic(topic) for topic in ALL if topic.name.endswith(".dlq")
    }


def refused_when_ahead(settings: Settings, hours: int) -> set[str]:
    """The topics that refuse a record of a writer whose clock is so far ahead."""
    producer = Producer({"bootstrap.servers": settings.kafka["bootstrap.servers"]})
    refused: set[str] = set()

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            assert error.code() == KafkaError.INVALID_TIMESTAMP, error
            refused.add(message.topic() or "")

    ahead = round((time.time() + hours * 3600) * 1000)
    for topic in ALL:
        producer.produce(settings.topic(topic), b"{}", b"key", timestamp=ahead, on_delivery=delivered)
    assert producer.flush(60) == 0
    return refused


def test_default_is_twelve_partitions(bootstrap_servers: str, prefix: str) -> None:
    """A dry run reports the counts and creates nothing."""
    # given
    settings = _settings(bootstrap_servers, prefix)

    # when
    changes = {change.topic: change for change in apply_topics(settings, dry_run=True)}

    # then
    name = settings.topic(ASYNC_CUSTOMERS)
    assert changes[name] == TopicChange(topic=name, action="create", detail="12 partitions")
    assert {change.action for change in apply_topics(settings, dry_run=True)} == {"create"}


def test_another_partition_count_is_refused_with_advice(bootstrap_servers: str, prefix: str) -> None:
    """The partitions of an existing keyed topic never change: its keys would move. The setting to write is named."""
    # given
    apply_topics(_settings(bootstrap_servers, prefix, partitions=2))
    settings = _settings(bootstrap_servers, prefix, partitions=3)

    # when
    changes = {change.topic: change for change in apply_topics(settings)}

    # then
    name = settings.topic(ASYNC_CUSTOMERS)
    assert changes[name].action == "refuse"
    assert changes[name].detail == (
        "has 2 partitions instead of 3: with another count the same key would go to another partition. "
        "Keep this count (`partitions = 2` in tenten.toml), or use another prefix"
    )
    assert changes[settings.topic(SCHEMAS)].action == "keep"
    assert topic_ids(settings, [name])[name].partitions == 2


def test_offsets_of_partitions_without_a_leader_are_worth_asking_for_again(bootstrap_servers: str, prefix: str) -> None:
    """The client's answer names no reason. A broker that was frozen knows no leaders for a moment, as of this topic."""
    settings = _settings(bootstrap_servers, prefix)
    with pytest.raises(KafkaException) as raised:
        last_stable_offsets(settings, f"{prefix}of-no-leader", 3)
    assert raised.value.args[0].code() == KafkaError.LEADER_NOT_AVAILABLE
    assert is_transient(raised.value)


def test_second_run_changes_nothing(bootstrap_servers: str, prefix: str) -> None:
    """Every topic is kept with its id."""
    # given
    settings = _settings(bootstrap_servers, prefix, partitions=2)
    apply_topics(settings)
    ids = topic_ids(settings, map(settings.topic, ALL))

    # when
    again = apply_topics(settings)

    # then
    assert {change.action for change in again} == {"keep"}
    assert topic_ids(settings, map(settings.topic, ALL)) == ids


@pytest.mark.parametrize("partitions", [0, 1_001])
def test_partition_count_has_limits(partitions: int) -> None:
    """Between 1 and 1,000."""
    with pytest.raises(ValidationError, match="partitions"):
        _settings("127.0.0.1:9092", "", partitions)


def test_process_has_one_administrative_client(bootstrap_servers: str, prefix: str) -> None:
    """Each further client would open connections; only another configuration gets another one."""
    # given
    settings = _settings(bootstrap_servers, prefix)
    other = settings.model_copy(update={"kafka": {**settings.kafka, "client.id": "other"}})

    # when
    clients = [admin_client(settings), admin_client(settings), admin_client(other)]

    # then
    assert clients[0] is clients[1]
    assert clients[0] is not clients[2]


def test_describe_cluster_is_never_called() -> None:
    """It can end the whole process in the client library when a broker is frozen; `list_topics` cannot."""
    root = Path(__file__).parents[2]
    folders = ("tenten", "consumers", "producers", "schemas", "benchmarks")
    sources = [path for folder in folders for path in (root / folder).rglob("*.py")]
    assert sources
    assert [path for path in sources if "describe_cluster" in path.read_text()] == []


def test_question_without_an_answer_is_given_up(
    bootstrap_servers: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client may look for a group's coordinator for ever; the next question goes to a new client."""
    # given
    settings = _settings(bootstrap_servers, prefix)
    monkeypatch.setattr(topics_admin, "_ANSWER_SECONDS_MAX", 0.2)
    first = admin_client(settings)
    # when
    with pytest.raises(KafkaException, match="no answer") as raised:
        topics_admin.ask(settings, lambda _: {"never": Future()})
    # then
    assert is_transient(raised.value)
    assert admin_client(settings) is not first
