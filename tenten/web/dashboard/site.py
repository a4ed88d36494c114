"""Pages and parts of pages, from templates, for one visitor."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from jinja2 import Environment
from markupsafe import Markup, escape
from sqlalchemy import Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tenten.rules.reference import reference
from tenten.rules.transaction_rules import is_currency, minor_unit
from tenten.runtime.settings import Settings
from tenten.web.dashboard.access import Access, Visitor
from tenten.web.dashboard.actions import ActionLog
from tenten.web.dashboard.snapshot import Snapshots
from tenten.web.pages.rendering import template_environment

FormKey = Annotated[str, Form()]
"""The hidden field of every form."""

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/customers", "Customers"),
    ("/changes", "Changes"),
    ("/transactions", "Orders and statements"),
    ("/dead-letters", "Dead letters"),
    ("/channels", "Channels"),
    ("/checks", "Checks"),
    ("/actions", "Actions"),
)

BEHIND: Final = "behind"
"""The parameter that says behind which row of a list a page begins; without it, it is the first page."""

_WORDS: Final = {"no_avro": "not Avro", "cash_and_carry": "sale"}
"""The codes whose own words people do not use."""

Collect = Callable[[Request, Visitor], dict[str, Any]]
"""The values of a page's template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that pages need."""

    settings: Settings
    engine: Engine
    access: Access
    actions: ActionLog
    snapshots: Snapshots
    environment: Environment
    ending: Event
    """Set when the server ends."""

    def page(
        self, visitor: Visitor | None, template: str, path: str, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page. `path`: of the entry of the navigation that it belongs to."""
        text = self._render(template, visitor, path=path, **values)
        return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})

    def part(self, visitor: Visitor, template: str, **values: Any) -> str:
        """A part of a page."""
        return self._render(f"parts/{template}", visitor, path="", **values)

    def add_live_page(self, router: APIRouter, template: str, path: str, on: str, collect: Collect) -> None:
        """A page whose only part is fetched again when one of these parts of the snapshot changes; of a list only its
        first page.
        """

        @router.get(path)
        def whole(request: Request) -> Response:
            visitor = self.access.visitor(request)
            query = f"?{request.url.query}" if request.url.query else ""
            content = Markup(self.part(visitor, template, **collect(request, visitor)))  # noqa: S704 - it is escaped
            fragment = f"/part{path}{query}" if BEHIND not in request.query_params else ""
            return self.page(visitor, "live.html", path, content=content, fragment=fragment, on=on)

        @router.get(f"/part{path}")
        def part(request: Request) -> Response:
            visitor = self.access.visitor(request)
            text = self.part(visitor, template, **collect(request, visitor))
            return HTMLResponse(text, headers={"Cache-Control": "no-store"})

    def done(self, path: str) -> Response:
        """The answer to an action: the page that shows what has become of it."""
        self.snapshots.expire()
        return RedirectResponse(path, 303)

    def _render(self, template: str, visitor: Visitor | None, *, path: str, **values: Any) -> str:
        navigation = [{"url": url, "label": label, "current": url == path} for url, label in NAVIGATION]
        label = next((label for url, label in NAVIGATION if url == path), "")
        common = {
            "title": "",
            "label": label,
            "server_name": "Headquarters",
            "language": "en",
            "navigation": navigation if visitor is not None else [],
            "events_url": "/events" if visitor is not None else "",
            "visitor": visitor,
            "now": datetime.now(UTC),
        }
        return self.environment.get_template(template).render({**common, **values})


def make_environment() -> Environment:
    """The templates of the dashboard, with their filters."""
    environment = template_environment(Path(__file__).parent / "templates")
    filters: Mapping[str, Callable[..., Any]] = {
        "age": age,
        "moment": moment,
        "money": money,
        "pair": lambda value: (value, words(value)),
        "number": lambda value: "" if value is None else f"{value:,}",
        "reference": reference,
        "seconds": duration,
        "sentence": sentence,
        "words": words,
    }
    environment.filters.update(filters)
    return environment


def words(code: object) -> str:
    """A code as people read it.

    >>> words("invalid_email"), words("no_avro"), words("cash_and_carry")
    ('invalid email', 'not Avro', 'sale')
    """
    text = str(code)
    return _WORDS.get(text, text.replace("_", " "))


def duration(seconds: float | None) -> str:
    """A time in its largest unit.

    >>> duration(0.0123), duration(4.2), duration(75), duration(7_300), duration(200_000)
    ('12 ms', '4.2 s', '75 s', '2 h', '2 d')
    """
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3_600, 48), ("d", 86_400, 1_000_000)):
        if seconds < size * most:
            return f"{int(seconds // size)} {unit}"
    return ""


def money(amount: str, currency: str) -> str:
    """An amount with the digits of its currency, and with more if it has more.

    >>> money("4.5", "USD"), money("0.335", "USD"), money("4", "JPY")
    ('4.50 USD', '0.335 USD', '4 JPY')
    """
    if not is_currency(currency):
        return f"{amount} {currency}"
    exact = Decimal(amount)
    rounded = exact.quantize(minor_unit(currency))
    return f"{rounded if rounded == exact else amount} {currency}"


def age(time: datetime | None, now: datetime, absent: str = "") -> str | Markup:
    """How long ago a time was; a script keeps it up to date."""
    if time is None:
        return absent
    seconds = max(0, int((now - time).total_seconds()))
    return Markup('<span class="age" data-since="{}" title="{:%Y-%m-%d %H:%M:%S} UTC">{}</span>').format(
        time.isoformat(timespec="seconds"), time.astimezone(UTC), duration(seconds) if seconds else "now"
    )


def moment(time: datetime | None) -> str | Markup:
    """A time, which a script shows in the browser's time zone."""
    if time is None:
        return ""
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S} UTC</time>').format(
        time.isoformat(timespec="milliseconds"), time.astimezone(UTC)
    )


def sentence(value: str) -> Markup:
    """A sentence of the program, its commands set as code."""
    parts = re.split(r"`([^`]*)`", value)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
