"""The demonstration itself, scene by scene, with the commands that a user has.

It makes a directory with a `tenten.toml`, starts Kafka and PostgreSQL there, headquarters and three stores, imports a
file in one, registers customers in all, cuts one off and lets it back, replays the topic into one, and checks itself.
It ends what it started.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from sqlalchemy import Engine, func, select

from commerce.database import open_database
from commerce.failures import TentenError
from commerce.settings import Settings, load_settings
from operations import local
from operations.demo.people import people, write_customers_file
from operations.demo.stores import Standing, checks, standing
from producers import create_customer, edit_customer, open_channel
from schemas import channel

IMPORTED: Final = 9_500
CREATES_PER_SECOND: Final = 15
"""In each store."""

TOGETHER_SECONDS: Final = 15
APART_SECONDS: Final = 8
REST_SECONDS_MAX: Final = 180
"""How long the streams may take to come to rest before the demonstration has failed."""

STORES: Final = ("houston", "seattle", "boston")
CUT_OFF: Final = "seattle"
RESYNCED: Final = "boston"

_SETTINGS: Final = """\
# Three stores of one company; houston has a server of its own, the others a file each.
[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = {{ format = "C-########", next = 1, continuous = true }}

[channels.houston]
legal_entity = "usrt"
address_books = ["US"]
database = "{houston}"

[channels.seattle]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///seattle.db"

[channels.boston]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///boston.db"
"""


class DemoFailed(TentenError):
    """A command of the demonstration did not do what it should."""


def run(directory: Path | None = None, keep: bool = False) -> bool:
    """Play the demonstration. True when everything it checks at the end holds.

    `directory` must be new or empty; without it a temporary one is used and removed, unless `keep`.
    Raises: `DemoFailed`, `LocalServiceFailure`.
    """
    console = Console()
    place = Path(tempfile.mkdtemp(prefix="tenten-demo-")) if directory is None else directory.absolute()
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise DemoFailed(f"{place} is not empty: name a new directory")
    started_at = time.monotonic()
    try:
        with ExitStack() as ends:
            ends.callback(local.stop, place / ".tenten")
            stage = _set_up(console, place, ends)
            holds = _play(stage)
        console.print(f"\nThat took {time.monotonic() - started_at:.0f} s.", highlight=False)
    finally:
        if directory is None and not keep:
            shutil.rmtree(place, ignore_errors=True)
        else:
            console.print(f"Everything is still in {place}", highlight=False)
    return holds


@dataclass(slots=True, kw_only=True)
class _Stage:
    """What the scenes work with."""

    console: Console
    place: Path
    settings: Settings
    headquarters: Engine
    stores: dict[str, Engine]
    processes: dict[str, subprocess.Popen[bytes]]
    streamed: dict[str, int]
    imported_at: datetime
    state: dict[str, str]


def _set_up(console: Console, place: Path, ends: ExitStack) -> _Stage:
    """Servers, topics, databases, headquarters and three stores."""
    console.rule("[bold]Servers on this machine")
    services = local.start(place / ".tenten", lambda text: console.print(f"  {text}", highlight=False))
    houston = local.create_database(services.postgresql, "houston")
    (place / "tenten.toml").write_text(_SETTINGS.format(houston=houston))
    _tenten(console, place, "topics", "apply")
    _tenten(console, place, "database", "upgrade", "all")
    settings = load_settings(place / "tenten.toml", {"bootstrap.servers": services.bootstrap_servers})
    headquarters = open_database(local.database_url(services, "headquarters"))
    ends.callback(headquarters.dispose)
    stores = {name: open_database(settings.channel(name).database) for name in STORES}
    for store in stores.values():
        ends.callback(store.dispose)
    stage = _Stage(
        console=console,
        place=place,
        settings=settings,
        headquarters=headquarters,
        stores=stores,
        processes={},
        streamed=dict.fromkeys(STORES, 0),
        imported_at=datetime.now(UTC),
        state=dict.fromkeys(STORES, "on line"),
    )
    ends.callback(_end_all, stage)
    console.rule("[bold]Headquarters and three stores")
    _start(stage, "headquarters", "headquarters", "run")
    for name in STORES:
        _start(stage, name, "channel", "run", name)
    return stage


def _play(stage: _Stage) -> bool:
    stage.console.rule("[bold]A file of customers, into one store")
    imported = _import(stage)
    stage.imported_at = datetime.now(UTC)
    stage.console.rule("[bold]Tills in every store")
    with _selling(stage), _view(stage) as look:
        look(TOGETHER_SECONDS)
        together = {name: standing(store, stage.imported_at) for name, store in stage.stores.items()}
        stage.state[CUT_OFF] = "cut off"
        _stop(stage, CUT_OFF)
        look(APART_SECONDS)
        _start(stage, CUT_OFF, "channel", "run", CUT_OFF, quietly=True)
        stage.state[CUT_OFF] = "back"
        stage.state[RESYNCED] = "resync"
        _tenten(stage.console, stage.place, "channel", "resync", RESYNCED, quietly=True)
        stage.state[RESYNCED] = "on line"
        look(2)
    expected = imported + sum(stage.streamed.values())
    _come_to_rest(stage, expected)
    return _summary(stage, expected, together)


def _import(stage: _Stage) -> int:
    write_customers_file(stage.place / "customers.csv", IMPORTED)
    answer = _tenten(
        stage.console, stage.place, "customer", "import", "houston", "customers.csv", "--key", "CustomerKey", "--json"
    )
    created = json.loads(answer)["created"]
    stage.console.print(f"  {created:,} customers, pending until headquarters has numbered them", highlight=False)
    return int(created)


@contextmanager
def _selling(stage: _Stage) -> Iterator[None]:
    """Clerks at every till: they register customers, and correct one now and then, whether the line is up or not."""
    stop = Event()
    failed: list[BaseException] = []

    def clerk(number: int, name: str) -> None:
        try:
            with open_channel(stage.settings, name) as till:
                for person in people(seed=100 + number):
                    if stop.wait(1 / CREATES_PER_SECOND):
                        return
                    customer = create_customer(
                        till,
                        first_name=person.first_name,
                        last_name=person.last_name,
                        email=person.email,
                        phone=person.phone,
                    )
                    stage.streamed[name] += 1
                    if person.number % 10 == 0:
                        edit_customer(till, customer.customer_id, title="Dr.")
        except BaseException as error:
            failed.append(error)
            raise

    clerks = [Thread(target=clerk, args=(number, name), name=f"clerk-{name}") for number, name in enumerate(STORES)]
    for one in clerks:
        one.start()
    try:
        yield
    finally:
        stop.set()
        for one in clerks:
            one.join()
    if failed:
        raise DemoFailed(f"a clerk could not go on: {failed[0]}") from failed[0]


@contextmanager
def _view(stage: _Stage) -> Iterator[Callable[[float], None]]:
    """The live view; what it gives looks on for so many seconds."""
    before = dict.fromkeys(STORES, (time.monotonic(), 0))

    def table() -> Table:
        view = Table(
            "store", "line", "created here", "pending", "synchronized", "creates/s", "p50", "p99", title_justify="left"
        )
        for name, store in stage.stores.items():
            now = standing(store, stage.imported_at)
            at, count = before[name]
            rate = (stage.streamed[name] - count) / max(time.monotonic() - at, 0.001)
            before[name] = (time.monotonic(), stage.streamed[name])
            view.add_row(name, stage.state[name], *_figures(now), f"{rate:.0f}", _ms(now.p50_ms), _ms(now.p99_ms))
        view.caption = "p50, p99: from a create at the till to its account number in that store's database"
        return view

    with Live(table(), console=stage.console, auto_refresh=False) as live:

        def look(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.5)
                live.update(table(), refresh=True)

        yield look


def _figures(now: Standing) -> tuple[str, str, str]:
    return f"{now.created:,}", f"{now.pending:,}", f"{now.customers:,}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"


def _come_to_rest(stage: _Stage, expected: int) -> None:
    """Wait until every store has every customer with its number, or the time is up; the checks say what is missing."""
    stage.console.print("Waiting until every store has every customer ...", highlight=False)
    give_up_at = time.monotonic() + REST_SECONDS_MAX
    while time.monotonic() < give_up_at:
        now = [standing(store, stage.imported_at) for store in stage.stores.values()]
        if all(one.customers == expected and one.pending == 0 for one in now) and not _unsettled(stage):
            return
        for name, process in stage.processes.items():
            if process.poll() is not None:
                raise DemoFailed(f"{name} ended with {process.returncode}: see {stage.place / f'{name}.log'}")
        time.sleep(0.2)


def _unsettled(stage: _Stage) -> int:
    """How many changes of the stores headquarters has not answered."""
    query = select(func.count()).select_from(channel.outbox).where(channel.outbox.c.settled_at.is_(None))
    count = 0
    for store in stage.stores.values():
        with store.connect() as connection:
            count += connection.scalar(query) or 0
    return count


def _summary(stage: _Stage, expected: int, together: dict[str, Standing]) -> bool:
    stage.console.rule("[bold]Summary")
    shape = stage.settings.legal_entities["usrt"].account_numbers.format
    found = checks(expected, shape, stage.headquarters, stage.stores)
    result = Table("", "what must hold", "found")
    for check in found:
        result.add_row("[green]yes[/]" if check.holds else "[red]NO[/]", check.text, check.found)
    stage.console.print(result)
    for name, now in together.items():
        text = f"  {name}: create to account number p50 {_ms(now.p50_ms)}, p99 {_ms(now.p99_ms)} while all were on line"
        stage.console.print(text, highlight=False)
    agree = _tenten(stage.console, stage.place, "headquarters", "verify", "--json", allowed=(0, 1))
    differences = json.loads(agree)
    sound = not (differences["missing"] or differences["surplus"] or differences["different"])
    stage.console.print(
        f"  headquarters' database and the topic {'agree' if sound else 'DIFFER'} "
        f"on {differences['customers']:,} customers",
        highlight=False,
    )
    return sound and all(check.holds for check in found)


def _tenten(console: Console, place: Path, *words: str, quietly: bool = False, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a command as a user would; gives what it prints. Raises: `DemoFailed` with what it says."""
    if not quietly:
        console.print(f"[bold]$ tenten {' '.join(words)}", highlight=False)
    done = subprocess.run(_command(words), cwd=place, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise DemoFailed(f"`tenten {' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _start(stage: _Stage, name: str, *words: str, quietly: bool = False) -> None:
    """Start a process that runs on; its output goes to a file."""
    if not quietly:
        stage.console.print(f"[bold]$ tenten {' '.join(words)} &", highlight=False)
    with (stage.place / f"{name}.log").open("ab") as output:
        stage.processes[name] = subprocess.Popen(
            _command(words), cwd=stage.place, env=_environment(), stdout=output, stderr=output
        )


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "operations.cli", *words]


def _environment() -> dict[str, str]:
    """This process's environment, without what would lead the commands elsewhere."""
    elsewhere = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "TENTEN_HEADQUARTERS_URL", "TENTEN_CONFIG")
    return {name: value for name, value in os.environ.items() if name not in elsewhere}


def _stop(stage: _Stage, name: str) -> None:
    """End a process as an operator would, and wait for it."""
    process = stage.processes.pop(name)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_all(stage: _Stage) -> None:
    for name in list(stage.processes):
        _stop(stage, name)
