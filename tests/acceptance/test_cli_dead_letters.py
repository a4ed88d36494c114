"""`tenten dead-letters` with a worker that cannot read a record."""

import pytest
from confluent_kafka import Producer

from tests.acceptance.cli import Tenten, wait_until


@pytest.mark.parametrize(
    ("topic", "reader"),
    [("async-customers", "headquarters"), ("retail-transactions", "transactions")],
    ids=["customers", "transactions"],
)
def test_dead_letter_is_listed_shown_replayed_and_discarded(
    ready_company: Tenten, bootstrap_servers: str, prefix: str, topic: str, reader: str
) -> None:
    """An unreadable record is a dead letter; replayed, it becomes another; discarded dead letters are not listed."""
    company = ready_company
    # given
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(f"{prefix}{topic}", b"\x00nonsense", b"nobody", partition=3)
    producer.flush()

    def places() -> list[str]:
        return [letter["place"] for letter in company.ok("dead-letters", "list", "--json").json]

    with company.running(reader, "run"):
        wait_until(lambda: len(places()) == 1, "the dead letter")
        # when
        [place] = places()
        shown = company.ok("dead-letters", "show", place, "--json").json
        replayed = company.ok("dead-letters", "replay", place, "--json").json
        wait_until(lambda: len(places()) == 1 and places() != [place], "the replayed dead letter")
    without_yes = company.run("dead-letters", "discard", "--all")
    discarded = company.ok("dead-letters", "discard", "--all", "--yes", "--json").json
    # then
    assert (shown["value"], shown["key"], shown["origin"]) == ("AG5vbnNlbnNl", "nobody", f"{prefix}{topic}/3/0")
    assert shown["reason"] != ""
    assert (replayed, discarded) == ({"replayed": 1}, {"discarded": 1})
    assert without_yes.code == 2
    assert places() == []
    assert len(company.ok("dead-letters", "list", "--all", "--json").json) == 2
    assert company.run("dead-letters", "show", f"{place}999").code == 1


def test_dead_letters_of_both_topics_are_listed_with_their_topic(
    ready_company: Tenten, bootstrap_servers: str, prefix: str
) -> None:
    """The place of a transaction's dead letter includes the topic; --topic restricts a command to one topic."""
    company = ready_company
    # given
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    reason = {"x-dlq-reason": b"no_avro", "__connect.errors.topic": f"{prefix}retail-transactions".encode()}
    producer.produce(f"{prefix}retail-transactions.dlq", b"\x00sale", b"houston", headers=[*reason.items()])
    producer.produce(f"{prefix}retail-transactions.dlq", b"\x00sale", b"seattle", headers=[*reason.items()])
    producer.produce(f"{prefix}async-customers.dlq", b"\x00event", b"nobody")
    producer.flush()
    second = "retail-transactions.dlq/0/1"

    def listed(*words: str) -> list[tuple[str, str]]:
        found = company.ok("dead-letters", "list", "--json", *words).json
        return [(letter["topic"], letter["place"]) for letter in found]

    # when
    both = listed()
    shown = company.ok("dead-letters", "show", second, "--json").json
    short = company.ok("dead-letters", "show", "0/1", "--topic", "retail-transactions", "--json").json
    of_customers = company.ok("dead-letters", "show", "0/0", "--json").json
    elsewhere = company.run("dead-letters", "show", second, "--topic", "async-customers")
    unknown = company.run("dead-letters", "list", "--topic", "customers")
    missing = company.run("dead-letters", "replay", "retail-transactions.dlq/0/2")
    replayed = company.ok("dead-letters", "replay", second, "--json").json
    discarded = company.ok("dead-letters", "discard", "--all", "--topic", "retail-transactions", "--yes", "--json").json
    # then
    assert both == [
        ("async-customers.dlq", "0/0"),
        ("retail-transactions.dlq", "retail-transactions.dlq/0/0"),
        ("retail-transactions.dlq", second),
    ]
    assert (shown["key"], shown["value"], shown["reason"]) == ("seattle", "AHNhbGU=", "no_avro")
    assert short == shown
    assert (of_customers["key"], of_customers["place"]) == ("nobody", "0/0")
    assert (elsewhere.code, unknown.code, missing.code) == (2, 2, 1)
    assert "async-customers or retail-transactions" in unknown.err
    assert f"no dead letter {second[:-1]}2" in missing.err
    assert (replayed, discarded) == ({"replayed": 1}, {"discarded": 1})
    assert listed() == [("async-customers.dlq", "0/0")]
    assert listed("--topic", "retail-transactions") == []
    assert len(listed("--topic", "retail-transactions", "--all")) == 2
