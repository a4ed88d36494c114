"""`tenten status`, `fleet` and `doctor`: missing processes, silent servers and late changes, each once and in time."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.acceptance.cli import Ended, Tenten, status_of_all, wait_until
from tests.acceptance.faulty import make, plain
from tests.statement_rows import insert_statement

STATUS_SECONDS: Final = 3 * 5.0
"""Three times the time in which the status promises to end."""


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers, like one that is frozen."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def all_running(company: Tenten) -> Iterator[None]:
    """Everything runs, and has been heard from."""
    with (
        company.running("headquarters", "run"),
        company.running("transactions", "run"),
        company.running("channel", "run", "houston"),
        company.running("channel", "run", "seattle"),
    ):
        wait_until(lambda: company.run("status").code == 0, "a healthy status")
        yield


def problems(ended: Ended) -> dict[str, list[str]]:
    """The codes of the problems of a status, by what they are about."""
    found: dict[str, list[str]] = {}
    for problem in ended.json["problems"]:
        for about in problem["about"]:
            found.setdefault(about, []).append(problem["code"])
    return found


def channel_of(fleet: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A channel of the fleet."""
    [channel] = [channel for channel in fleet if channel["channel_id"] == name]
    return channel


def problem_in_store(company: Tenten) -> str:
    """What houston's own database says is wrong."""
    return company.ok("channel", "status", "houston", "--json").json["problem"] or ""


def test_missing_processes_are_reported_until_they_are_heard_from(ready_company: Tenten) -> None:
    """Status, doctor and fleet exit with 3 and name what to start; when everything runs, the fleet shows every channel.
    A suspended store is reported at headquarters and in the store, and one that was last complete long ago.
    """
    company = ready_company
    company.ok("customer", "create", "houston", "--first-name", "Ada")
    # when nothing runs
    silent, advised, unheard = status_of_all(company), company.run("doctor"), company.run("fleet", "--json")
    # then
    assert (silent.code, advised.code, unheard.code) == (3, 3, 3)
    assert problems(silent) == {
        "headquarters": ["not_running", "not_running"],
        "houston": ["not_heard_from"],
        "seattle": ["not_heard_from"],
    }
    for command in ("headquarters run", "transactions run", "channel run houston", "channel run seattle"):
        assert f"tenten {command}" in advised.out
    assert channel_of(unheard.json, "houston") == {
        "channel_id": "houston",
        "heard_at": None,
        "complete_at": None,
        "customers": None,
        "oldest_unsent_seconds": None,
        "oldest_unsettled_seconds": None,
        "version": None,
        "loading": None,
        "problems": [{"code": "not_heard_from", "text": silent.json["channels"]["houston"]["problem"]}],
    }
    # when everything runs
    with all_running(company):
        healthy = status_of_all(company).json
        assert company.ok("doctor", "--json").json["healthy"]
        wait_until(
            lambda: channel_of(company.run("fleet", "--json").json, "houston")["oldest_unsettled_seconds"] is None,
            "the settled customer",
        )
        fleet = company.ok("fleet", "--json").json
        # when
        company.ok("channel", "suspend", "houston", "--why", "till 3 was stolen")
        wait_until(lambda: "till 3 was stolen" in problem_in_store(company), "the store to learn that it is suspended")
        suspended, doubted = company.run("fleet", "--json"), company.run("doctor")
        # then
        assert (suspended.code, doubted.code) == (3, 3)
        [reported] = channel_of(suspended.json, "houston")["problems"]
        assert (reported["code"], reported["text"]) == ("suspended", problem_in_store(company))
        assert problems(status_of_all(company)) == {"houston": ["suspended"]}
        assert "till 3 was stolen" in doubted.out
        # when
        company.ok("channel", "resume", "houston")
        # then
        wait_until(lambda: not problem_in_store(company), "the store to learn that it is accepted again")
        company.ok("fleet")
    # then
    assert healthy["problems"] == []
    assert healthy["headquarters"]["workers"] == {"headquarters": 1, "transactions": 1}
    assert [channel["channel_id"] for channel in fleet] == ["houston", "seattle"]
    houston = channel_of(fleet, "houston")
    assert (houston["customers"], houston["oldest_unsent_seconds"], houston["problems"]) == (1, None, [])
    assert houston["complete_at"] is not None
    assert "houston" in company.ok("fleet").out
    # when the store was last complete long ago
    with closing(sqlite3.connect(company.directory / "houston.db")) as file, file:
        file.execute("UPDATE positions SET confirmed_at = '2026-01-01 00:00:00.000000'")
    # then
    assert "incomplete_too_long" in problems(status_of_all(company))["houston"]


def test_change_that_is_late_is_reported(ready_company: Tenten) -> None:
    """The oldest unsent change, and one that headquarters has not answered, are compared with their limits."""
    company = ready_company
    company.ok("customer", "create", "houston", "--first-name", "Ada")
    with closing(sqlite3.connect(company.directory / "houston.db")) as file, file:
        file.execute("UPDATE outbox SET created_at = '2026-01-01 00:00:00.000000'")
    # when, then
    assert "unsent_too_long" in problems(company.run("status", "--json"))["houston"]
    with closing(sqlite3.connect(company.directory / "houston.db")) as file, file:
        file.execute("DELETE FROM outbox_queue")
    late = company.run("status", "--json")
    assert "unsettled_too_long" in problems(late)["houston"]
    assert "tenten lag" in company.run("status").out
    with closing(sqlite3.connect(company.directory / "houston.db")) as file, file:
        file.execute("UPDATE outbox SET outcome = 'rejected'")
    # A rejected change waits for a clerk, not for headquarters.
    assert problems(status_of_all(company))["houston"] == ["not_heard_from"]


def test_statement_and_event_that_wait_too_long_at_headquarters_are_reported(
    ready_company: Tenten, headquarters_url: str
) -> None:
    """A blocked statement and a held event, each older than its limit; a longer limit makes both acceptable."""
    company = ready_company
    insert_statement(headquarters_url, "blocked", ago=timedelta(hours=2))
    with psycopg.connect(headquarters_url) as connection:
        connection.execute(
            "INSERT INTO held_events (event_id, customer_id, channel_id, reasons, code, subject, topic, partition, "
            "\"offset\", value, headers, bytes, held_at) VALUES (gen_random_uuid(), gen_random_uuid(), 'dallas', "
            "'[]', 'unknown_channel', 'dallas', 'async-customers', 0, 0, '', '[]', 0, now() - interval '1 hour')"
        )
    # when
    late, as_text, advised = status_of_all(company), company.run("status").out, company.run("doctor").out
    toml = company.directory / "tenten.toml"
    toml.write_text(toml.read_text() + "\n[alarms]\nblocked_seconds_max = 100000\nheld_seconds_max = 100000\n")
    in_time = status_of_all(company)
    # then
    assert {"blocked_too_long", "held_too_long"} <= set(problems(late)["headquarters"])
    assert late.json["headquarters"]["held"]["causes"][0]["subject"] == "dallas"
    for text in ("tenten statement show houston 2026-10-10", "headquarters does not have the channel dallas"):
        assert text in as_text
        assert text in advised
    assert set(problems(in_time)["headquarters"]) == {"not_running"}


def test_held_events_are_listed_and_rejected(ready_company: Tenten, headquarters_url: str) -> None:
    """Each is shown with what it waits for and no personal data; one that is not held cannot be rejected."""
    company = ready_company
    with psycopg.connect(headquarters_url) as connection:
        connection.execute(
            "INSERT INTO held_events (event_id, customer_id, channel_id, reasons, code, subject, topic, partition, "
            "\"offset\", value, headers, bytes, held_at) SELECT gen_random_uuid(), gen_random_uuid(), channel, '[]', "
            "'unknown_channel', channel, 'async-customers', 0, 0, '', '[]', 0, now() - interval '1 hour' "
            "FROM unnest(ARRAY['dallas', 'boston']) AS channel"
        )
    held = ("headquarters", "held")
    # when
    (event,) = company.ok(*held, "list", "--channel", "dallas", "--older-than", "3000", "--json").json
    nothing = company.ok(*held, "list", "--code", "number_sequence_used_up", "--json").json
    unknown = company.run(*held, "reject", event["event_id"], event["customer_id"], "--reason", "A test")
    unchanged = company.ok(*held, "list", "--json").json
    without = company.run(*held, "reject", event["event_id"], "--reason", " ")
    rejected = company.ok(*held, "reject", event["event_id"], "--reason", "A test store", "--json").json
    # then
    assert (event["code"], event["subject"], event["is_to_be_rejected"]) == ("unknown_channel", "dallas", False)
    assert nothing == []
    assert (unknown.code, without.code) == (1, 2)
    assert "tenten headquarters held list" in unknown.err
    assert [row["is_to_be_rejected"] for row in unchanged] == [False, False]
    assert rejected == {"rejected": 1}
    after = company.ok(*held, "list", "--json").json
    assert {row["channel_id"]: row["is_to_be_rejected"] for row in after} == {"dallas": True, "boston": False}
    assert event["event_id"] in company.ok(*held, "list").out


def test_server_that_is_away_is_one_sentence_and_hides_nothing(tmp_path: Path, prefix: str) -> None:
    """Broker and PostgreSQL accept connections and are silent: status ends in time and shows what the store has."""
    with silent_server() as kafka, silent_server() as postgresql:
        company = make(
            tmp_path,
            prefix=prefix,
            kafka=plain(f"127.0.0.1:{kafka}"),
            headquarters=f"postgresql://tenten@127.0.0.1:{postgresql}/headquarters",
            channels={"houston": "usrt", "seattle": "usrt", "dallas": "usrt"},
        )
        for name in ("houston", "seattle"):
            company.ok("database", "upgrade", "channel", name)
        toml = company.directory / "tenten.toml"
        toml.write_text(
            toml.read_text().replace("sqlite:///dallas.db", f"postgresql://tenten@127.0.0.1:{postgresql}/dallas")
        )
        company.ok("customer", "create", "houston", "--first-name", "Ada")
        # when
        began = time.monotonic()
        ended, as_text = company.run("status", "--json"), company.run("status")
        seconds = time.monotonic() - began
        # then
        assert seconds < 2 * STATUS_SECONDS
        assert (ended.code, as_text.code) == (3, 3)
        assert [problem["about"] for problem in ended.json["problems"]] == [["Kafka"], ["headquarters", "dallas"]]
        assert as_text.out.count(f"127.0.0.1:{kafka} does not answer") == 1
        assert as_text.out.count(f"127.0.0.1:{postgresql} does not answer") == 1
        assert ended.json["channels"]["houston"]["customers"] == 1
        assert ended.json["channels"]["seattle"]["customers"] == 0


def test_store_alone_shows_its_channel(company: Tenten, prefix: str, bootstrap_servers: str, tmp_path: Path) -> None:
    """Settings without headquarters' database: topics and workers of headquarters are not looked at."""
    company.ok("topics", "apply")
    store = make(tmp_path / "store", prefix=prefix, kafka=plain(bootstrap_servers))
    store.ok("database", "upgrade", "all")
    assert problems(status_of_all(store)) == {"houston": ["not_heard_from"]}
    with store.running("channel", "run", "houston"):
        wait_until(lambda: store.run("status").code == 0, "a healthy status")
        status = status_of_all(store).json
    assert status["headquarters"]["problem"] is None
    names = {topic["topic"].removeprefix(prefix) for topic in status["topics"]}
    assert {"customers", "channel-status"} <= names
    assert "async-customers.dlq" not in names


def test_account_number_on_two_customers_is_an_alarm_at_headquarters(ready_company: Tenten) -> None:
    """The store's heartbeat and its status report it; headquarters sees it in the fleet."""
    company = ready_company
    for name in ("Ada", "Grace"):
        company.ok("customer", "create", "houston", "--first-name", name)
    with closing(sqlite3.connect(company.directory / "houston.db")) as file, file:
        file.execute("UPDATE customers SET account_number = 'C-00000001'")
    with company.running("channel", "run", "houston"):
        wait_until(
            lambda: channel_of(company.run("fleet", "--json").json, "houston")["version"] is not None, "a heartbeat"
        )
        fleet = company.run("fleet", "--json").json
    codes = [problem["code"] for problem in channel_of(fleet, "houston")["problems"]]
    assert codes == ["duplicate_account_number"]
    assert "duplicate_account_number" in problems(company.run("status", "--json"))["houston"]
    assert "several customers of this channel share an account number" in company.ok("channel", "status", "houston").out


@pytest.mark.parametrize("command", ["status", "fleet"])
def test_no_broker_in_the_settings_is_one_sentence(store: Tenten, command: str) -> None:
    """A store whose settings name no broker is told to name one."""
    ended = store.run(command)
    assert ended.code in (1, 2, 3)
    assert "KAFKA_BOOTSTRAP_SERVERS" in ended.out + ended.err
    assert "Traceback" not in ended.err
