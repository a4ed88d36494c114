"""The processes, as an operator starts, watches and ends them."""

import signal

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
