"""A broker that is away does not fail what only makes a client quicker."""

from confluent_kafka import Consumer, Producer

from tenten.kafka.client_waits import wait_for_leaders, wake

NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def test_client_without_a_broker_goes_on() -> None:
    """Neither the wait for leaders nor the one for a resumed partition raises, and an empty question asks nothing."""
    # given
    producer, consumer = Producer(NOWHERE), Consumer({**NOWHERE, "group.id": "nobody"})
    # when, then
    wait_for_leaders(producer, ["topic"])
    wait_for_leaders(consumer, [])
    wake(consumer, "topic", [0])
    wake(consumer, "topic", [])
    consumer.close()
