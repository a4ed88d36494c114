"""Starting, monitoring and stopping the processes."""

import signal
from datetime import UTC, datetime, timedelta

from tests.acceptance.cli import Tenten, end, status_of_all, wait_until


def test_customer_gets_its_number_in_every_store(ready_company: Tenten) -> None:
    """A customer reaches headquarters and, numbered, both stores; SIGTERM drains every process."""
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
    found = company.ok("customer", "search", "seattle", "C-00000001", "--json").json
    assert [customer["customer_id"] for customer in found] == [created["customer_id"]]
    status = company.ok("channel", "status", "seattle", "--json").json
    assert {name: status[name] for name in ("customers", "pending", "unsettled", "lag")} == {
        "customers": 1,
        "pending": 0,
        "unsettled": 0,
        "lag": 0,
    }
    assert status_of_all(company).json["headquarters"]["verification"] is None
    verified = company.ok("headquarters", "verify", "--json").json
    assert verified == {"customers": 1, "missing": [], "surplus": [], "different": []}
    verification = status_of_all(company).json["headquarters"]["verification"]
    assert datetime.now(UTC) - datetime.fromisoformat(verification.pop("finished_at")) < timedelta(minutes=10)
    assert verification == {"customers": 1, "missing": 0, "surplus": 0, "different": 0}
    assert "VERIFICATION" in company.run("status").out
    lags = company.ok("lag", "--json").json
    assert {lag["lag"] for lag in lags if lag["group"].endswith("headquarters")} == {0}


def test_headquarters_erases_a_customer_when_a_person_confirms_it(ready_company: Tenten) -> None:
    """Without `--yes` nothing is asked of headquarters; without a worker it is done as soon as one runs."""
    company = ready_company
    erase = ("customer", "erase", "C-00000001", "--why", "request 2026-117", "--operator", "mary")
    # given
    with company.running("headquarters", "run"), company.running("channel", "run", "houston"):
        ada = company.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "60", "--json").json
        # when
        unknown = company.run(*erase[:2], "C-99999999", *erase[3:], "--yes")
        unconfirmed = company.run(*erase)
        erased = company.ok(*erase, "--yes", "--wait", "60", "--json").json
        wait_until(lambda: company.run("customer", "show", "houston", ada["customer_id"]).code == 1, "Ada to be gone")
    again = company.ok(*erase, "--yes", "--wait", "0")
    # then
    assert (unknown.code, unconfirmed.code) == (1, 2)
    assert "headquarters has no customer C-99999999" in unknown.err
    assert erased.pop("erased_at") is not None
    assert erased.pop("event_id") is not None
    assert erased == {
        "customer_id": ada["customer_id"],
        "account_number": "C-00000001",
        "why": "request 2026-117",
        "operator": "mary",
        "outcome": "erased",
        "reasons": [],
    }
    assert "outcome         erased\n" in again.out
    assert "Ada" not in company.log


def test_resync_restores_deleted_customers(ready_company: Tenten) -> None:
    """A customer that the store's tables lack is restored by `channel resync`."""
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


def test_topics_apply_is_idempotent(company: Tenten, prefix: str) -> None:
    """A dry run creates nothing; a second `apply` changes nothing; doctor and status report missing topics, and then
    that nothing runs yet.
    """

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
    checks = company.run("doctor", "--json").json["checks"]
    assert {check["what"] for check in checks if not check["ok"]} == {"running"}
    status = status_of_all(company).json
    assert {problem["code"] for problem in status["problems"]} == {"not_running", "not_heard_from"}
    assert next(topic["topic"] for topic in status["topics"]) == f"{prefix}async-customers"
    assert status["channels"]["houston"]["customers"] == status["headquarters"]["customers"] == 0


def test_customer_gets_one_number_after_a_failpoint_killed_the_channel(ready_company: Tenten) -> None:
    """A channel is killed after the broker's acknowledgement; with the next process its customer gets one number."""
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
    """A second relay is refused, which ends the process of all threads with a sentence and exit code 1."""
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


def test_workers_of_a_channel_run_as_separate_processes(ready_company: Tenten) -> None:
    """Relay, settlement and distribution work as three processes, and each drains at SIGTERM."""
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
