"""`/livez`, `/readyz` and `/metrics` of real processes."""

from contextlib import ExitStack
from typing import Final
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Producer

from tenten.runtime.metrics import METRICS, ProcessKind
from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, Tenten
from tests.acceptance.served import ANSWER_SECONDS, Scrape, has, serving
from tests.waiting import wait_for

NOBODY: Final = "127.0.0.1:1"
"""Where no broker is."""


def test_every_process_serves_the_metrics_of_the_catalogue_and_they_follow_a_customer(
    ready_company: Tenten, bootstrap_servers: str, prefix: str
) -> None:
    """A customer is created, numbered and distributed; counts, ages and lags say so, and so does a dead letter.
    A store that was never heard from, and one that is suspended, are seen.
    """
    with ExitStack() as stack:
        # given
        headquarters = stack.enter_context(serving(ready_company, "headquarters", "run"))
        transactions = stack.enter_context(serving(ready_company, "transactions", "run"))
        houston = stack.enter_context(serving(ready_company, "channel", "run", "houston"))
        for worker in (headquarters, transactions):
            wait_for(lambda worker=worker: worker.get("/readyz").status_code == 200, "readiness")  # type: ignore[misc]  # bound now

        # when
        ready_company.ok("customer", "create", "houston", "--last-name", "Lovelace")
        wait_for(lambda: Scrape(houston).value("tenten_create_to_number_seconds_count") == 1, "the number")
        wait_for(lambda: has(houston, "tenten_outbox_unsent", 0, {}), "an empty queue")
        wait_for(lambda: has(houston, "tenten_oldest_unsettled_seconds", 0, {}), "the settled outbox")
        wait_for(lambda: has(houston, "kafka_consumergroup_lag", 0, {}), "the customer in the store")
        send_rubbish(bootstrap_servers, f"{prefix}async-customers")
        wait_for(lambda: Scrape(headquarters).value("tenten_dead_letters_total") == 1, "the dead letter")
        wait_for(lambda: has(headquarters, "kafka_consumergroup_lag", 0, {}), "the offsets of headquarters")

        # then
        at_headquarters, in_store = Scrape(headquarters), Scrape(houston)
        assert at_headquarters.value("tenten_events_total", outcome="synchronized") == 1
        assert at_headquarters.value("tenten_account_numbers_left", legal_entity="usrt") == 99_999_998
        assert at_headquarters.value("tenten_batches_total", part="headquarters") == 2
        assert at_headquarters.value("tenten_dead_letters_total", reason="no_avro") == 1
        assert in_store.value("tenten_outbox_sent_total") == 1
        assert in_store.value("tenten_batch_records_total", part="settlement") == 1
        assert in_store.value("tenten_http_requests_total", route="/metrics", method="GET", status="200")
        wait_for(lambda: is_heard(headquarters, "houston"), "a heartbeat")
        assert Scrape(headquarters).value("tenten_channel_suspended", channel="seattle") == 0
        assert Scrape(headquarters).value("tenten_channel_heard_timestamp_seconds", channel="seattle") is None
        ready_company.ok("channel", "suspend", "seattle", "--why", "never opened")
        suspended = {"channel": "seattle"}
        wait_for(lambda: has(headquarters, "tenten_channel_suspended", 1, suspended), "the suspension")
        for scrape in (at_headquarters, in_store, Scrape(transactions)):
            assert scrape.value("tenten_scrape_problem") == 0
        served: tuple[tuple[ProcessKind, httpx.Client], ...] = (
            ("headquarters", headquarters),
            ("transactions", transactions),
            ("channel", houston),
        )
        for kind, client in served:
            assert_as_in_the_catalogue(kind, Scrape(client))


def send_rubbish(bootstrap_servers: str, topic: str) -> None:
    """Write a record that nobody can read."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(topic, b"rubbish", str(uuid4()))
    assert producer.flush(ANSWER_SECONDS) == 0


def is_heard(headquarters: httpx.Client, channel: str) -> bool:
    """Whether headquarters has a heartbeat in which the channel is complete."""
    scrape = Scrape(headquarters)
    heard = scrape.value("tenten_channel_heard_timestamp_seconds", channel=channel)
    return heard is not None and scrape.value("tenten_channel_complete_timestamp_seconds", channel=channel) is not None


def assert_as_in_the_catalogue(kind: ProcessKind, scrape: Scrape) -> None:
    """Fail unless the process serves exactly its metrics, each with its labels."""
    ours = {name for name in scrape.names if name.startswith(("tenten_", "kafka_"))}
    assert ours == {name for name, metric in METRICS.items() if kind in metric.served_by}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= scrape.names
    for name in ours:
        sample = f"{name}_count" if METRICS[name].kind == "histogram" else name
        assert scrape.labels[sample] in (set(), set(METRICS[name].labels)), name


def test_a_store_without_a_broker_is_alive_and_ready_and_a_worker_without_one_is_not_ready(
    tmp_path_factory: pytest.TempPathFactory, headquarters_url: str
) -> None:
    """The store sells and sends later. Neither answer waits for the broker, and the metrics say who does not answer."""
    # given
    directory = tmp_path_factory.mktemp("offline")
    servers = f'[kafka]\n"bootstrap.servers" = "{NOBODY}"\n[headquarters]\ndatabase = "{headquarters_url}"\n'
    (directory / "tenten.toml").write_text(servers + LEGAL_ENTITY + HOUSTON)
    tenten = Tenten(directory=directory)
    tenten.ok("database", "upgrade", "all")
    with (
        serving(tenten, "channel", "run", "houston") as houston,
        serving(tenten, "headquarters", "run") as headquarters,
    ):
        # when
        tenten.ok("customer", "create", "houston", "--last-name", "Lovelace")

        # then
        for client in (houston, headquarters):
            assert client.get("/livez").json()["status"] == "ok"
            assert client.get("/livez", headers={"Host": "10.1.2.3:8710"}).status_code == 200
            assert client.get("/livez", headers={"Host": "shop.example.com"}).status_code == 421
            wait_for(lambda client=client: has(client, "tenten_scrape_problem", 1, {"about": "broker"}), "a problem")  # type: ignore[misc]  # bound now
            assert Scrape(client).value("tenten_scrape_problem", about="database") == 0
            assert Scrape(client).value("kafka_consumergroup_lag") is None
        assert houston.get("/readyz").status_code == 200
        assert Scrape(houston).value("tenten_outbox_unsent") == 1
        not_ready = headquarters.get("/readyz")
        assert not_ready.status_code == 503
        assert set(not_ready.json()["problems"]) == {"group"}
