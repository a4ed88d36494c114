"""`tenten up`: starts, restarts and ends all processes."""

import json
import re
from pathlib import Path

import httpx
import psutil
import psycopg

from tenten import local
from tests.acceptance.cli import Tenten, end, wait_until


def get(link: str) -> httpx.Response:
    """The page to which a link leads."""
    return httpx.get(link, follow_redirects=True, timeout=60)


def test_up_restarts_a_killed_process_and_drains_at_the_end(company: Tenten, headquarters_url: str) -> None:
    """It creates topics and databases, runs all processes, and prints links that sign in at the pages; a killed process
    is restarted; SIGTERM ends all. No process has a password on its command line.
    """
    # given
    with company.running("up", "--kafka", "sasl.password=hunter2") as up:
        wait_until(lambda: company.log.count("event=process_started") == 5, "the processes")
        [first] = re.findall(r"process=houston pid=(\d+)", company.log)
        # when
        psutil.Process(int(first)).kill()
        wait_until(lambda: company.log.count("process=houston pid=") == 2, "the new process")
        wait_until(lambda: "Ready. Try" in company.log, "readiness")
        created = company.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "60", "--json").json
        wait_until(lambda: "the screen of seattle" in company.log, "the links")
        pages = {link: get(link) for link in re.findall(r"http://\S+token=\S+", company.log)}
        children = psutil.Process(up.pid).children()
        descendants = psutil.Process(up.pid).children(recursive=True)
        command_lines = [Path(f"/proc/{child.pid}/cmdline").read_bytes() for child in descendants]
        passed_on = [json.loads(child.environ()["TENTEN_KAFKA"]) for child in children]
        code = end(up)
    # then
    assert created["account_number"] == "C-00000001"
    assert code == 0, company.log
    assert [page.status_code for page in pages.values()] == [200] * 3
    assert ["Sign out" in page.text for page in pages.values()] == [False, True, True]
    assert len(children) == 5
    assert len(command_lines) >= 5
    assert not any(b"hunter2" in line for line in command_lines)
    assert passed_on == [{"sasl.password": "hunter2"}] * 5
    assert "other users of this machine can read the sasl.password" in company.log
    assert not any(child.is_running() for child in children)
    with psycopg.connect(headquarters_url) as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (1,)


def test_up_gives_up_a_process_whose_settings_are_wrong(company: Tenten) -> None:
    """A process that is killed and then finds wrong settings is not restarted for ever; the others continue."""
    toml = company.directory / "tenten.toml"
    with company.running("up", "--no-web") as up:
        wait_until(lambda: "Ready. Try" in company.log, "readiness")
        [first] = re.findall(r"process=houston pid=(\d+)", company.log)
        # when
        toml.write_text(toml.read_text().replace("sqlite:///houston.db", "houston"))
        psutil.Process(int(first)).kill()
        # then
        wait_until(lambda: "houston has ended because its settings are wrong" in company.log, "the message")
        assert company.log.count("process=houston pid=") == 2
        assert "event=process_given_up process=houston code=2" in company.log
        assert len(psutil.Process(up.pid).children()) == 3
        assert end(up) == 0


def test_processes_end_when_their_supervisor_is_killed(company: Tenten) -> None:
    """No process of a killed `tenten up` keeps running and holding locks."""
    with company.running("up") as up:
        wait_until(lambda: company.log.count("event=process_started") == 5, "the processes")
        children = psutil.Process(up.pid).children()
        up.kill()
        up.wait()
        _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_up_starts_local_servers_where_none_are_named(store: Tenten) -> None:
    """Without configured servers it starts local ones, a customer gets its number, and the servers keep running."""
    try:
        # given, when
        with store.running("up", "--no-web") as up:
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
