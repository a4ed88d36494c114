"""The demonstration's environment: servers, headquarters and stores on this machine, and a user's commands."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from sqlalchemy import Engine

from tenten import local
from tenten.demo.ledger import Ledger
from tenten.identity.local_keys import give_key
from tenten.runtime.errors import TentenError
from tenten.runtime.settings import Settings, load_settings
from tenten.sql.engine import open_database
from tenten.web.local_pages import LocalPages, can_serve_pages, reserve_pages

STORES: Final = ("houston", "seattle", "boston")
NEW: Final = "denver"
"""The store that joins later."""

_SETTINGS: Final = """\
# Three stores of one company; houston has a server of its own, the others a file each.
# One machine needs no more: each transaction of Kafka writes to every partition that it touches.
partitions = 3

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
    """A step of the demonstration failed."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """The environment of the scenes."""

    console: Console
    place: Path
    settings: Settings
    """Of headquarters and the first stores, on this machine."""
    settings_of: dict[str, Settings]
    """By store."""
    headquarters: Engine
    stores: dict[str, Engine]
    ledgers: dict[str, Ledger]
    day: date
    """The business date of all sales, also after midnight."""
    processes: dict[str, subprocess.Popen[bytes]]
    imported_at: datetime
    state: dict[str, str]
    ends: ExitStack
    """Ends everything."""
    pages: LocalPages | None = None
    """Where pages are served; None: nowhere."""


def set_up(console: Console, place: Path, ends: ExitStack, *, web: bool) -> Stage:
    """Start servers, headquarters and three stores with topics and databases, and serve their pages if that is wanted
    and possible; `ends` ends them.
    """
    console.rule("[bold]Servers on this machine")
    ends.callback(local.stop, place / ".tenten")
    services = local.start(place / ".tenten", lambda text: console.print(f"  {text}", highlight=False))
    houston = local.create_database(services.postgresql, "houston")
    (place / "tenten.toml").write_text(_SETTINGS.format(houston=houston))
    settings = load_settings(place / "tenten.toml", {"bootstrap.servers": services.bootstrap_servers})
    headquarters = open_database(local.database_url(services, "headquarters"))
    ends.callback(headquarters.dispose)
    stores = {name: open_database(settings.channel(name).database) for name in STORES}
    for store in stores.values():
        ends.callback(store.dispose)
    now = datetime.now(UTC)
    stage = Stage(
        console=console,
        place=place,
        settings=settings,
        settings_of=dict.fromkeys(STORES, settings),
        headquarters=headquarters,
        stores=stores,
        ledgers={name: Ledger() for name in STORES},
        day=now.date(),
        processes={},
        imported_at=now,
        state=dict.fromkeys(STORES, "on line"),
        ends=ends,
    )
    if web and can_serve_pages():
        stage.pages = reserve_pages((*STORES, NEW), ends)
    ends.callback(_end_all, stage)
    tenten(stage, "topics", "apply")
    tenten(stage, "database", "upgrade", "all")
    for name, store in stores.items():
        # As `tenten up` does for the stores of its machine: headquarters knows who has written a record.
        give_key(headquarters, store, name, source="demo")
    console.rule("[bold]Headquarters and three stores")
    start(stage, "headquarters", "headquarters", "run")
    start(stage, "transactions", "transactions", "run")
    for name in STORES:
        start_channel(stage, name)
    if stage.pages is not None:
        start(stage, "dashboard", "headquarters", "web", "--http", str(stage.pages.dashboard))
        console.print("[bold]In a browser, while this runs:")
        _show_link(console, "dashboard", stage.pages.link_to_dashboard(settings))
        for name in STORES:
            show_screen(stage, name)
    return stage


def show_screen(stage: Stage, name: str) -> None:
    """Print the link to a store's screen, if pages are served."""
    if stage.pages is not None:
        _show_link(stage.console, name, stage.pages.link_to_store(stage.settings_of[name], name))


def _show_link(console: Console, name: str, link: str) -> None:
    console.print(f"  {name:<10}{link}", highlight=False, soft_wrap=True)


def start_channel(stage: Stage, name: str, directory: Path | None = None) -> None:
    """Start a store, which serves its screen if pages are served, in this directory or in that of headquarters."""
    http = () if stage.pages is None else ("--http", str(stage.pages.stores[name]))
    start(stage, name, "channel", "run", name, *http, directory=directory)


def tenten(stage: Stage, *words: str, quietly: bool = False, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a command as a user would, and return its output. Raises: `DemoFailed` with its message."""
    if not quietly:
        stage.console.print(f"[bold]$ tenten {' '.join(words)}", highlight=False)
    done = subprocess.run(
        _command(words), cwd=stage.place, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode not in allowed:
        raise DemoFailed(f"`tenten {' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def start(stage: Stage, name: str, *words: str, directory: Path | None = None) -> None:
    """Start a worker, in this directory or in that of headquarters; its output goes to a file."""
    stage.console.print(f"[bold]$ tenten {' '.join(words)} &", highlight=False)
    with (stage.place / f"{name}.log").open("ab") as output:
        stage.processes[name] = subprocess.Popen(
            _command(words), cwd=directory or stage.place, env=_environment(), stdout=output, stderr=output
        )


def check_processes(stage: Stage) -> None:
    """Raises: `DemoFailed` if a process has ended unexpectedly."""
    for name, process in stage.processes.items():
        if process.poll() is not None:
            raise DemoFailed(f"{name} ended with {process.returncode}: see {stage.place / f'{name}.log'}")


def stop(stage: Stage, name: str) -> None:
    """End a process as an operator would, and wait for it."""
    process = stage.processes.pop(name)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_all(stage: Stage) -> None:
    """End every process: all are signalled before the first is waited for."""
    for process in stage.processes.values():
        process.send_signal(signal.SIGTERM)
    for name in list(stage.processes):
        stop(stage, name)


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "tenten.cli", *words]


def _environment() -> dict[str, str]:
    """This process's environment without variables that name other servers."""
    elsewhere = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "TENTEN_HEADQUARTERS_URL", "TENTEN_CONFIG")
    return {name: value for name, value in os.environ.items() if name not in elsewhere}
