"""The end of a run: everything settles without a hand, and the product itself finds nothing wrong."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from sqlalchemy import func, select

from tenten.producers import OpenChannel
from tenten.schemas.tables import channel
from tenten.status import channel_status
from tests.faults.settled import wait_until_settled
from tests.faults.soak_run.company import Company
from tests.waiting import wait_for

SETTLED_SECONDS_MAX: Final = 900.0
"""Three times as long as the slowest way: a reply was lost, its event is sent again, the store resyncs after that."""


def wait_until_all_is_settled(company: Company) -> None:
    """Wait for headquarters and all stores; fail when something is left open."""
    for _ in range(2):
        # The customers of one store's last orders travel to the others.
        for till in company.tills.values():
            _wait(partial(_open_rows, company, till), f"everything in {till.name} to be settled")
        wait_until_settled(company.scene, "transactions", "headquarters", released=True)


def _wait(open_rows: Callable[[], dict[str, int]], awaited: str) -> None:
    try:
        wait_for(lambda: open_rows() == {}, awaited, SETTLED_SECONDS_MAX)
    except AssertionError as error:
        raise AssertionError(f"{error}: {open_rows()}") from None


def _open_rows(company: Company, till: OpenChannel) -> dict[str, int]:
    """What a store still waits for, with the number of rows; empty if it waits for nothing."""
    queries = {
        "events to be sent": select(func.count()).select_from(channel.outbox_queue),
        "events without reply": select(func.count()).where(channel.outbox.c.settled_at.is_(None)),
        "customers without number": select(func.count()).where(channel.customers.c.account_number.is_(None)),
        "transactions": select(func.count()).where(channel.transactions.c.status != "synchronized"),
        "ends of day": select(func.count()).where(channel.end_of_days.c.status != "posted"),
        "requested resyncs": select(func.count()).select_from(channel.resync_requests),
    }
    with till.reading() as connection:
        found = {name: int(connection.scalar(query) or 0) for name, query in queries.items()}
    lag = channel_status(company.scene.settings, till.name).lag
    found["records to be read"] = 1 if lag is None else lag
    return {name: rows for name, rows in found.items() if rows}


def products_own_findings(company: Company) -> list[str]:
    """What `tenten headquarters verify` finds wrong, and `tenten status` after the next heartbeats."""
    last: dict[tuple[str, ...], str] = {}

    def is_well(*words: str) -> bool:
        ended = company.command().run_process(*words)
        last[words] = (
            "" if ended.code == 0 else f"`tenten {' '.join(words)}` ends with {ended.code}: {ended.out}{ended.err}"
        )
        return ended.code == 0

    is_well("headquarters", "verify")
    with suppress(AssertionError):
        wait_for(lambda: is_well("status"), "a good status")
    return [text for text in last.values() if text]
