"""The scene of a store that joins while the others sell: it sells, too, is suspended, and is resumed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tenten.demo.ledger import Ledger
from tenten.demo.selling import clerks
from tenten.demo.stage import NEW, Stage, show_screen, start_channel, tenten
from tenten.demo.stores import Check, standing
from tenten.demo.view import View
from tenten.runtime.settings import load_settings
from tenten.sql.channel_settings import read_acceptance
from tenten.sql.engine import consistent_view, open_database

_CHANNEL: Final = f"""
[channels.{NEW}]
legal_entity = "usrt"
address_books = ["US"]
"""

_SELLS_SECONDS: Final = 1
_NOTICE_SECONDS_MAX: Final = 60
_WHY: Final = "inventory"


@contextmanager
def new_store(stage: Stage, view: View, meanwhile: Callable[[], None]) -> Iterator[Check]:
    """A store that joins and sells until the end of the block; its check for the summary. It is suspended first, during
    another scene.
    """
    _join(stage)
    place = stage.place / NEW
    settings = load_settings(place / "tenten.toml")
    store = open_database(settings.channel(NEW).database)
    stage.ends.callback(store.dispose)
    stage.ledgers[NEW], stage.state[NEW] = Ledger(), "joined"
    stage.settings_of[NEW], stage.stores[NEW] = settings, store
    start_channel(stage, NEW, place)
    show_screen(stage, NEW)
    with clerks(stage.settings_of, stage.day, {NEW: stage.ledgers[NEW]}, first=len(stage.ledgers)):
        view.look(_SELLS_SECONDS)
        yield _suspend(stage, view, meanwhile)


def _join(stage: Stage) -> None:
    """Headquarters adds the channel and makes a token; the store joins with it, in an empty directory."""
    shown = tenten(stage, "settings", "show", quietly=True)
    (stage.place / "stores.toml").write_text(shown + _CHANNEL)
    tenten(stage, "settings", "apply", "stores.toml", "--operator", "mary")
    printed = json.loads(tenten(stage, "channel", "enroll", NEW, "--operator", "mary", "--json"))
    stage.console.print(f"[bold]$ tenten store join TOKEN --directory {NEW}", highlight=False)
    tenten(stage, "store", "join", printed["token"], "--directory", NEW, quietly=True)
    stage.console.print(f"  {NEW} has joined: it has its key, its settings and every customer", highlight=False)


def _suspend(stage: Stage, view: View, meanwhile: Callable[[], None]) -> Check:
    """Suspend the store, which sells on, and resume it after another scene."""
    tenten(stage, "channel", "suspend", NEW, "--why", _WHY, "--operator", "mary")
    view.wait(f"{NEW} knows that it is suspended", lambda: _suspension(stage) == _WHY, _NOTICE_SECONDS_MAX)
    stage.state[NEW] = "suspended"
    before = len(stage.ledgers[NEW].sold)
    meanwhile()
    kept = len(stage.ledgers[NEW].sold) - before
    pending = standing(stage.stores[NEW], stage.imported_at).pending
    text = f"  While suspended, {NEW} has sold {kept:,} times; {pending:,} of its customers are pending"
    stage.console.print(text, highlight=False)
    tenten(stage, "channel", "resume", NEW, "--operator", "mary")
    stage.state[NEW] = "resumed"
    return Check(
        text=f"{NEW} joined with a token, and kept what it sold while it was suspended",
        holds=kept > 0 and pending > 0,
        found=f"{kept:,} sales",
    )


def _suspension(stage: Stage) -> str | None:
    with consistent_view(stage.stores[NEW]) as connection:
        return read_acceptance(connection, NEW).suspended
