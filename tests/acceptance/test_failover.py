"""The page about a failover of headquarters' database, with a real replica that takes over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cli import wait_until
from tests.acceptance.faulty import make, plain
from tests.acceptance.pages import commands_of, create, headquarters_running, numbers, order, sales_order, type_in
from tests.replicas import ReplicatedServer, replicated_server


@pytest.fixture
def server() -> Iterator[ReplicatedServer]:
    """The PostgreSQL server of headquarters."""
    with replicated_server() as server:
        yield server


def test_failover(tmp_path: Path, bootstrap_servers: str, prefix: str, server: ReplicatedServer) -> None:
    """Workers continue on a replica that has everything, and stop on one that lacks the last seconds: the commands of
    the page lead out, and every number stays with its customer.
    """
    url = server.url("headquarters")
    company = make(tmp_path / "company", prefix=prefix, kafka=plain(bootstrap_servers), headquarters=url)
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "all")
    first, second = commands_of("failover.md")
    with company.running("channel", "run", "houston"):
        with company.running("headquarters", "run") as hq, company.running("transactions", "run") as transactions:
            # given
            assert create(company, "Ada") == "usrt-00000001"
            server.add_replica()
            server.wait_for_replica()
            # when
            server.fail_over()
            # then
            assert create(company, "Ben") == "usrt-00000002"
            assert [hq.poll(), transactions.poll()] == [None, None], company.log

            # given
            server.add_replica()
            server.disconnect_replica()
            assert create(company, "Cy") == "usrt-00000003"
            ordered = order(company)
            wait_until(lambda: sales_order(company, ordered) is not None, "the sales order")
            # when
            server.fail_over()
            company.ok("customer", "create", "houston", "--first-name", "Dee")
            # then
            wait_until(lambda: None not in (hq.poll(), transactions.poll()), "both workers to stop")
            assert [hq.poll(), transactions.poll()] == [1, 1], company.log
            assert "headquarters' database is older than the stream" in company.log
        # when
        type_in(company, first)
        with headquarters_running(company):
            # then
            wait_until(lambda: numbers(company, "dee") == ["usrt-00000004"], "the account number")
            type_in(company, second)
    assert numbers(company, "ada", "ben", "cy") == [f"usrt-0000000{number}" for number in (1, 2, 3)]
    assert sales_order(company, ordered) == "SO-00000001"
