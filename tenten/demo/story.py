"""The demonstration, scene by scene, with the commands of a user.

It makes a directory with a `tenten.toml`, starts Kafka and PostgreSQL there, headquarters and three stores, and imports
a file in one. Then clerks register customers and sell to them in all three, while a fourth store joins with a token and
is suspended for as long as one store is cut off, another closes its day too early for headquarters, and the third is
resynced. Every store closes its day, and the demonstration checks itself. It ends the processes that it started.
"""

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tenten import local
from tenten.demo.audit import sold_checks
from tenten.demo.joining import new_store
from tenten.demo.ledger import Sold
from tenten.demo.people import write_customers_file
from tenten.demo.selling import clerks
from tenten.demo.stage import DemoFailed, Stage, check_processes, set_up, start, start_channel, stop, tenten
from tenten.demo.stores import Check, Standing, checks, standing
from tenten.demo.view import View, viewing
from tenten.headquarters_views.statements import find_statement
from tenten.producers import close_day, open_channel
from tenten.schemas.messages import TransactionStatus
from tenten.sql.engine import consistent_view

IMPORTED: Final = 10_000
TOGETHER_SECONDS: Final = 8
APART_SECONDS: Final = 5
EARLY_SALES: Final = 10
"""Sales to pending customers, without headquarters, before the day is closed."""

REST_SECONDS_MAX: Final = 180
"""How long customers and sales may take to arrive everywhere."""

EARLY_SECONDS_MAX: Final = 60
"""How long each step of the early end of day may take."""

CUT_OFF: Final = "seattle"
RESYNCED: Final = "boston"
TOO_EARLY: Final = "houston"


def run(directory: Path | None = None, *, keep: bool = False, web: bool = True) -> bool:
    """Run the demonstration. True if every check at its end passes.

    `directory` must be new or empty; without it a temporary one is used and removed, unless `keep`. With `web`, and the
    extra of that name, the pages are served meanwhile.
    Raises: `DemoFailed`, `LocalServiceFailure`.
    """
    console = Console()
    place = local.temporary_directory("tenten-demo-") if directory is None else directory.absolute()
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise DemoFailed(f"{place} is not empty: name a new directory")
    started_at = time.monotonic()
    try:
        with ExitStack() as ends:
            holds = _play(set_up(console, place, ends, web=web))
        console.print(f"\nThat took {time.monotonic() - started_at:.0f} s.", highlight=False)
    finally:
        if directory is None and not keep:
            local.delete(place / ".tenten")
            shutil.rmtree(place, ignore_errors=True)
        else:
            console.print(f"All files are in {place}", highlight=False)
    return holds


def _play(stage: Stage) -> bool:
    stage.console.rule("[bold]A file of customers, into one store")
    imported = _import(stage)
    stage.console.rule("[bold]Tills in every store")
    with clerks(stage.settings_of, stage.day, dict(stage.ledgers)), viewing(stage) as view:
        view.look(TOGETHER_SECONDS)
        together = {name: standing(store, stage.imported_at) for name, store in stage.stores.items()}
        with new_store(stage, view, meanwhile=partial(_cut_off, stage, view)) as joined:
            early = _close_too_early(stage, view)
            stage.state[RESYNCED] = "resync"
            tenten(stage, "channel", "resync", RESYNCED)
            stage.state[RESYNCED] = "on line"
    stage.console.rule("[bold]End of the day")
    for name in stage.stores:
        _close(stage, name)
    stage.console.print("Waiting until every customer is in every store, and every day is posted ...", highlight=False)
    expected = imported + sum(ledger.customers for ledger in stage.ledgers.values())
    # What is missing when the time is up, the summary shows.
    _come_to_rest(stage, expected)
    return _summary(stage, expected, [joined, early], together)


def _import(stage: Stage) -> int:
    write_customers_file(stage.place / "customers.csv", IMPORTED)
    answer = tenten(stage, "customer", "import", "houston", "customers.csv", "--key", "CustomerKey", "--json")
    imported_at = datetime.now(UTC)
    created = json.loads(answer)["created"]
    stage.console.print(f"  {created:,} customers, pending until headquarters has numbered them", highlight=False)
    if not _come_to_rest(stage, int(created)):
        raise DemoFailed(f"not in every store within {REST_SECONDS_MAX} s; see the logs in {stage.place}")
    stage.imported_at = datetime.now(UTC)
    seconds = (stage.imported_at - imported_at).total_seconds()
    stage.console.print(f"  All stores have them with their numbers, {seconds:.1f} s later", highlight=False)
    return int(created)


def _cut_off(stage: Stage, view: View) -> None:
    """Disconnect a store for a while; it continues to sell."""
    stage.state[CUT_OFF] = "cut off"
    stop(stage, CUT_OFF)
    before = len(stage.ledgers[CUT_OFF].sold)
    view.look(APART_SECONDS)
    meanwhile = stage.ledgers[CUT_OFF].sold[before:]
    text = f"  While cut off, {CUT_OFF} has sold {len(meanwhile):,} times, {_pending(meanwhile):,} to pending customers"
    stage.console.print(text, highlight=False)
    start_channel(stage, CUT_OFF)
    stage.state[CUT_OFF] = "back"


def _pending(sold: Sequence[Sold]) -> int:
    """The number of these sales to a customer without an account number."""
    return sum(1 for sale in sold if sale.customer_pending)


def _close_too_early(stage: Stage, view: View) -> Check:
    """Close a day while headquarters assigns no numbers: the statement is blocked, and later posted automatically."""
    stage.console.print(
        "  Headquarters assigns no numbers for a while; its transactions worker continues", highlight=False
    )
    stop(stage, "headquarters")
    before = len(stage.ledgers[TOO_EARLY].sales)
    view.wait(
        f"{TOO_EARLY} sells",
        lambda: _pending(stage.ledgers[TOO_EARLY].sales[before:]) >= EARLY_SALES,
        EARLY_SECONDS_MAX,
    )
    tenten(stage, "day", "close", TOO_EARLY, "--date", stage.day.isoformat())
    view.wait(f"{TOO_EARLY} knows the status of its statement", lambda: _day(stage) in _JUDGED, EARLY_SECONDS_MAX)
    listing = tenten(stage, "statement", "list", "--channel", TOO_EARLY)
    stage.console.print(listing.rstrip(), highlight=False)
    with consistent_view(stage.headquarters) as connection:
        statement = find_statement(connection, TOO_EARLY, stage.day, 1)
    waiting = sum(1 for sale in statement.listed or () if sale.status == TransactionStatus.WAITING)
    stage.console.print(f"  {waiting:,} of the sales that it lists wait for their customers", highlight=False)
    start(stage, "headquarters", "headquarters", "run")
    back_at = time.monotonic()
    view.wait(f"{TOO_EARLY}'s day is posted", lambda: _day(stage) == TransactionStatus.POSTED, EARLY_SECONDS_MAX)
    seconds = time.monotonic() - back_at
    stage.console.print(
        f"  It was posted automatically, {seconds:.0f} s after headquarters was started", highlight=False
    )
    return Check(
        text=f"{TOO_EARLY}'s first statement was blocked, then posted automatically",
        holds=statement.status == TransactionStatus.BLOCKED and waiting > 0,
        found=f"{waiting:,} sales waited",
    )


_JUDGED: Final = (TransactionStatus.BLOCKED, TransactionStatus.POSTED)


def _day(stage: Stage) -> str:
    """The status of the early end of day in its store."""
    return standing(stage.stores[TOO_EARLY], stage.imported_at).day


def _close(stage: Stage, name: str) -> None:
    """Close a store's day, as `tenten day close` does; if it is closed already, the sales since then."""
    with open_channel(stage.settings_of[name], name) as till:
        listed = sum(end.transactions for end in close_day(till, stage.day))
    stage.console.print(f"  {name} closes its day: {listed:,} sales", highlight=False)


def _come_to_rest(stage: Stage, expected: int) -> bool:
    """Wait until every store is complete; False when the time is up."""
    give_up_at = time.monotonic() + REST_SECONDS_MAX
    while time.monotonic() < give_up_at:
        now = [standing(store, stage.imported_at) for store in stage.stores.values()]
        if all(store.customers == expected and store.open == 0 for store in now):
            return True
        check_processes(stage)
        time.sleep(0.2)
    return False


def _summary(stage: Stage, expected: int, scenes: Sequence[Check], together: dict[str, Standing]) -> bool:
    stage.console.rule("[bold]Summary")
    entity = stage.settings.legal_entities["usrt"]
    found = [
        *checks(expected, entity.account_numbers.format, stage.headquarters, stage.stores),
        *sold_checks(stage.ledgers, entity.sales_orders.format, stage.headquarters, stage.stores),
        *scenes,
    ]
    result = Table("", "check", "found")
    for check in found:
        result.add_row("[green]yes[/]" if check.holds else "[red]NO[/]", check.text, check.found)
    stage.console.print(result)
    for name, now in together.items():
        latency = f"p50 {now.p50_ms or 0:.0f} ms, p99 {now.p99_ms or 0:.0f} ms"
        text = f"  {name}: create to account number {latency} while all were on line"
        stage.console.print(text, highlight=False)
    agree = tenten(stage, "headquarters", "verify", "--json", allowed=(0, 1))
    differences = json.loads(agree)
    sound = not (differences["missing"] or differences["surplus"] or differences["different"])
    stage.console.print(
        f"  headquarters' database and the topic {'agree' if sound else 'DIFFER'} "
        f"on {differences['customers']:,} customers",
        highlight=False,
    )
    return sound and all(check.holds for check in found)
