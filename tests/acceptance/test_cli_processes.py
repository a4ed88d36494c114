"""The processes, as an operator starts, watches and ends them."""

import re
import signal

import psutil
import psycopg
import pytest
from confluent_kafka import Producer

from tenten import local
from tests.acceptance.cli import Tenten, end, wait_until


def test_customer_gets_its_number_in_every_store(ready_company: Tenten) -> None:
    """From till to headquarters and back into both stores; SIGTERM drains every process, and nothing differs."""
    company = ready_company
    # given
    with (
        company.running("headquarters", "run", "--slot", "0") as headquarters,
        company.running("channel", "run", "houston") as houston,
        company.running("channel", "run", "seattle") as seattle,
    ):
        # when
        created = company.ok(
            "customer", "create", "houston", "--first-name", "Ada", "--last-name", "King", "--sync", "60", "--json"
        ).json
        wait_until(
            lambda: len(company.ok("customer", "search", "seattle", "king", "--json").json) == 1, "Ada in Seattle"
        )
        wait_until(lambda: company.ok("channel", "status", "seattle", "--json").json["lag"] == 0, "no lag")
        ends = [end(process) for process in (houston, seattle, headquarters)]
    # then
    assert (created["status"], created["account_number"]) == ("synchronized", "C-00000001")
    assert ends == [0, 0, 0], company.log
    there = company.ok("customer", "search", "seattle", "C-00000001", "--json").json
    assert [one["customer_id"] for one in there] == [created["customer_id"]]
    standing = company.ok("channel", "status", "seattle", "--json").json
    assert {name: standing[name] for name in ("customers", "pending", "unsettled", "lag")} == {
        "customers": 1,
        "pending": 0,
        "unsettled": 0,
        "lag": 0,
    }
    verified = company.ok("headquarters", "verify", "--json").json
    assert verified == {"customers": 1, "missing": [], "surplus": [], "different": []}
    lags = company.ok("lag", "--json").json
    assert {one["lag"] for one in lags if one["group"].endswith("headquarters")} == {0}


def test_customers_deleted_by_accident_come_back_with_a_resync(ready_company: Tenten) -> None:
    """A store whose tables lost a customer has it again after `channel resync`."""
    company = ready_company
    # given
    with company.running("headquarters", "run"), company.running("channel", "run", "houston") as houston:
        company.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "60")
        end(houston)
        # when
        resynced = company.ok("channel", "resync", "seattle")
    # then
    assert "resync seattle" in resynced.err
    assert resynced.out == ""
    assert company.ok("customer", "search", "seattle", "ada", "--json").json[0]["account_number"] == "C-00000001"


def test_topics_are_made_once_and_a_grown_one_is_refused(company: Tenten, prefix: str) -> None:
    """A dry run makes nothing; applying twice changes nothing; doctor and status tell before and after."""

    # given
    def actions(*words: str) -> set[str]:
        return {change["action"] for change in company.ok("topics", "apply", "--json", *words).json}

    # when, then
    assert actions("--dry-run") == {"create"}
    unhealthy = company.run("doctor")
    assert unhealthy.code == 3
    assert "run `tenten topics apply`" in unhealthy.out
    assert company.run("status", "--json").code == 3
    assert actions() == {"create"}
    assert actions() == {"keep"}
    company.ok("database", "upgrade", "all")
    assert company.ok("doctor", "--json").json["healthy"] is True
    standing = company.ok("status", "--json").json
    assert next(one["topic"] for one in standing["topics"]) == f"{prefix}async-customers"
    assert standing["channels"]["houston"]["customers"] == standing["headquarters"]["customers"] == 0


@pytest.mark.parametrize(
    ("topic", "reader"),
    [("async-customers", "headquarters"), ("retail-transactions", "transactions")],
    ids=["customers", "transactions"],
)
def test_dead_letter_is_listed_shown_replayed_and_discarded(
    ready_company: Tenten, bootstrap_servers: str, prefix: str, topic: str, reader: str
) -> None:
    """A record that nobody can read is a dead letter; replayed it becomes another one; discarded ones are not
    listed.
    """
    company = ready_company
    # given
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(f"{prefix}{topic}", b"\x00nonsense", b"nobody", partition=3)
    producer.flush()

    def places() -> list[str]:
        return [one["place"] for one in company.ok("dead-letters", "list", "--json").json]

    with company.running(reader, "run"):
        wait_until(lambda: len(places()) == 1, "the dead letter")
        # when
        [place] = places()
        shown = company.ok("dead-letters", "show", place, "--json").json
        replayed = company.ok("dead-letters", "replay", place, "--json").json
        wait_until(lambda: len(places()) == 1 and places() != [place], "the replayed dead letter")
    hesitating = company.run("dead-letters", "discard", "--all")
    discarded = company.ok("dead-letters", "discard", "--all", "--yes", "--json").json
    # then
    assert (shown["value"], shown["key"], shown["origin"]) == ("AG5vbnNlbnNl", "nobody", f"{prefix}{topic}/3/0")
    assert shown["reason"] != ""
    assert (replayed, discarded) == ({"replayed": 1}, {"discarded": 1})
    assert hesitating.code == 2
    assert places() == []
    assert len(company.ok("dead-letters", "list", "--all", "--json").json) == 2
    assert company.run("dead-letters", "show", f"{place}999").code == 1


def test_dead_letters_of_both_topics_are_listed_and_told_apart(
    ready_company: Tenten, bootstrap_servers: str, prefix: str
) -> None:
    """What no reader of transactions could read has its topic before its place; --topic keeps to one of the two."""
    company = ready_company
    # given
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    reason = {"x-dlq-reason": b"framing", "__connect.errors.topic": f"{prefix}retail-transactions".encode()}
    producer.produce(f"{prefix}retail-transactions.dlq", b"\x00sale", b"houston", headers=[*reason.items()])
    producer.produce(f"{prefix}retail-transactions.dlq", b"\x00sale", b"seattle", headers=[*reason.items()])
    producer.produce(f"{prefix}async-customers.dlq", b"\x00event", b"nobody")
    producer.flush()
    second = "retail-transactions.dlq/0/1"

    def listed(*words: str) -> list[tuple[str, str]]:
        found = company.ok("dead-letters", "list", "--json", *words).json
        return [(one["topic"], one["place"]) for one in found]

    # when
    every = listed()
    shown = company.ok("dead-letters", "show", second, "--json").json
    short = company.ok("dead-letters", "show", "0/1", "--topic", "retail-transactions", "--json").json
    of_customers = company.ok("dead-letters", "show", "0/0", "--json").json
    elsewhere = company.run("dead-letters", "show", second, "--topic", "async-customers")
    unknown = company.run("dead-letters", "list", "--topic", "customers")
    missing = company.run("dead-letters", "replay", "retail-transactions.dlq/0/2")
    replayed = company.ok("dead-letters", "replay", second, "--json").json
    discarded = company.ok("dead-letters", "discard", "--all", "--topic", "retail-transactions", "--yes", "--json").json
    # then
    assert every == [
        ("async-customers.dlq", "0/0"),
        ("retail-transactions.dlq", "retail-transactions.dlq/0/0"),
        ("retail-transactions.dlq", second),
    ]
    assert (shown["key"], shown["value"], shown["reason"]) == ("seattle", "AHNhbGU=", "framing")
    assert short == shown
    assert (of_customers["key"], of_customers["place"]) == ("nobody", "0/0")
    assert (elsewhere.code, unknown.code, missing.code) == (2, 2, 1)
    assert "async-customers or retail-transactions" in unknown.err
    assert f"no dead letter {second[:-1]}2" in missing.err
    assert (replayed, discarded) == ({"replayed": 1}, {"discarded": 1})
    assert listed() == [("async-customers.dlq", "0/0")]
    assert listed("--topic", "retail-transactions") == []
    assert len(listed("--topic", "retail-transactions", "--all")) == 2


def test_failpoint_kills_the_process_and_the_next_one_goes_on(ready_company: Tenten) -> None:
    """A channel killed after the broker's acknowledgement has its customer numbered once, by the process after it."""
    company = ready_company
    # given
    company.ok("customer", "create", "houston", "--first-name", "Ada")
    with company.running("channel", "run", "houston", TENTEN_FAILPOINT="relay.after_ack") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    # when
    with company.running("headquarters", "run"), company.running("channel", "run", "houston"):
        wait_until(
            lambda: company.ok("channel", "status", "houston", "--json").json["pending"] == 0, "the account number"
        )
    # then
    assert company.ok("customer", "search", "houston", "C-00000001", "--json").json[0]["first_name"] == "Ada"


def test_fatal_error_in_one_thread_ends_the_channel(ready_company: Tenten) -> None:
    """A second relay is refused; that ends the whole process with the sentence and exit code 1."""
    company = ready_company
    # given
    with company.running("channel", "relay", "houston"):
        lock = company.directory / "houston.db.relay.lock"
        wait_until(lock.exists, "the first relay")
        # when
        ended = company.run("channel", "run", "houston")
    # then
    assert ended.code == 1
    assert "a relay of this channel is already running" in ended.err
    assert "Traceback" not in ended.err


def test_each_part_of_a_channel_runs_alone(ready_company: Tenten) -> None:
    """Relay, settlement and distribution as three processes do what one does, and each drains at SIGTERM."""
    company = ready_company
    with (
        company.running("headquarters", "run"),
        company.running("channel", "relay", "houston") as relay,
        company.running("channel", "settle", "houston") as settle,
        company.running("channel", "distribute", "houston") as distribute,
    ):
        created = company.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "60", "--json").json
        ends = [end(process) for process in (relay, settle, distribute)]
    assert created["account_number"] == "C-00000001"
    assert ends == [0, 0, 0], company.log


def test_up_starts_again_what_dies_and_drains_at_the_end(company: Tenten, headquarters_url: str) -> None:
    """One command makes and runs everything; a killed process comes back; SIGTERM ends all of them."""
    # given
    with company.running("up") as up:
        wait_until(lambda: company.log.count("event=process_started") == 4, "the processes")
        [first] = re.findall(r"process=houston pid=(\d+)", company.log)
        # when
        psutil.Process(int(first)).kill()
        wait_until(lambda: company.log.count("process=houston pid=") == 2, "the new process")
        wait_until(lambda: "Ready. Try" in company.log, "readiness")
        created = company.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "60", "--json").json
        children = psutil.Process(up.pid).children()
        code = end(up)
    # then
    assert created["account_number"] == "C-00000001"
    assert code == 0, company.log
    assert len(children) == 4
    assert not any(child.is_running() for child in children)
    with psycopg.connect(headquarters_url) as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (1,)


def test_processes_end_when_their_supervisor_is_killed(company: Tenten) -> None:
    """Nothing of a killed `tenten up` stays behind to keep the next one from its locks."""
    with company.running("up") as up:
        wait_until(lambda: company.log.count("event=process_started") == 4, "the processes")
        children = psutil.Process(up.pid).children()
        up.kill()
        up.wait()
        _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_up_starts_local_servers_where_none_are_named(store: Tenten) -> None:
    """With nothing but Python the servers come up, a customer gets its number, and the servers go on after it."""
    try:
        # given, when
        with store.running("up") as up:
            wait_until(lambda: "Ready. Try" in store.log, "readiness")
            created = store.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "60", "--json").json
            code = end(up)
        # then
        assert (created["account_number"], code) == ("C-00000001", 0), store.log
        assert "tenten customer create houston" in store.log
        assert "`tenten local stop` ends them" in store.log
        assert store.ok("local", "status", "--json").json["directory"] == str(store.directory / ".tenten")
        assert store.ok("headquarters", "verify", "--json").json["customers"] == 1
    finally:
        local.delete(store.directory / ".tenten")
