"""What every page of the screen needs: the channel, the session, the language, and the values of the frame."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, Final
from zoneinfo import ZoneInfo

from fastapi import Request
from jinja2 import Environment
from markupsafe import Markup
from sqlalchemy import Engine
from starlette.responses import RedirectResponse, Response

from tenten.producers.till.attention import Attention, needing_attention
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.transaction_views import TransactionView
from tenten.runtime.errors import InputRejected, TentenError
from tenten.runtime.settings import Settings
from tenten.schemas.messages import TransactionStatus
from tenten.sql.migrations import check_version
from tenten.web.apps import Served
from tenten.web.pages.login import ForeignForm, check_form, session_of
from tenten.web.pages.rendering import page, template_environment
from tenten.web.pages.sessions import Session, Sessions
from tenten.web.serving.writers import Writers
from tenten.web.store_screen import languages, reasons
from tenten.web.store_screen.changes import Changes
from tenten.web.store_screen.connection import CONNECTED, ConnectionState, ConnectionWatch
from tenten.web.store_screen.languages import LANGUAGES, Language

_TEMPLATES: Final = Path(__file__).parent / "templates"
_CLERK: Final = "clerk"
_HIDDEN: Final = ("form_key", "customer_id", "transaction_id", "rows", "kind", "more")
_YEAR_SECONDS: Final = 365 * 86_400

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A form of a page of this session."""

    request: Request
    session: Session
    form: Form

    @property
    def operator(self) -> str:
        """The clerk, as the session knows them; empty: the operator of the channel."""
        return self.session.name

    def text(self, name: str) -> str:
        """A field of the form, empty where it is missing."""
        return self.form.get(name, "")


class Screen:
    """The screen of one channel. Thread-safe."""

    def __init__(self, served: Served, channel: str, engine: Engine, token: str, writers: Writers) -> None:
        self.name = channel
        self.sessions = Sessions(f"store_{channel}", {_CLERK: token}, secure=served.settings.http.is_secure)
        self.connection = ConnectionWatch()
        self.changes = Changes(self.channel, self.connection, served.ending)
        self.editing: Final = Lock()
        """Held while a form's values are compared with the stored ones and written: between them nobody edits."""
        self._settings: Settings = served.settings
        self._engine = engine
        self._writers = writers
        self._opening = Lock()
        self._attending = Lock()
        self._attention: tuple[str, Attention] | None = None
        self._opened: OpenChannel | None = None

    def channel(self) -> OpenChannel:
        """The channel, opened when it is first needed: the database may come later than the server.

        Raises: `DatabaseRefused`, `SettingsError`; the database's errors.
        """
        with self._opening:
            if self._opened is None:
                check_version(self._engine, "channel")
                self._opened = OpenChannel(self._settings, self.name, self._engine)
            return self._opened

    def zone(self) -> ZoneInfo:
        """The channel's time zone."""
        return ZoneInfo(self.channel().settings.channel(self.name).time_zone)

    async def session(self, request: Request) -> Session:
        """The session of the request. Raises: `SignInFirst`."""
        return session_of(self.sessions, request)

    async def posted(self, request: Request) -> AsyncGenerator[Posted]:
        """The form of the request, which has a place among those that write until it is answered.

        Raises: `SignInFirst`, `ForeignForm`, `Problem` 503.
        """
        session = session_of(self.sessions, request)
        given = await request.form()
        form = {name: value for name, value in given.items() if isinstance(value, str)}
        try:
            check_form(self.sessions, session, form.get("form_key", ""))
        except ForeignForm:
            # Nothing is done with it, but the clerk can enter it again from the page that says so.
            request.state.entered = {name: text for name, text in form.items() if _is_entered(name) and text.strip()}
            raise
        async with self._writers.place():
            yield Posted(request=request, session=session, form=form)

    def language(self, request: Request) -> Language:
        """The language that the clerk has chosen, by default that of the channel's new customers."""
        if (chosen := self._chosen_language(request)) is not None:
            return chosen
        try:
            channel = self.channel()
            default = channel.settings.channel(self.name).default_customer.language
            return languages.language_of(default, channel.settings.legal_entity_of(self.name).language)
        except TentenError:
            return languages.ENGLISH

    def _chosen_language(self, request: Request) -> Language | None:
        return LANGUAGES.get(request.cookies.get(self._language_cookie, ""))

    def remember(self, response: Response, session: Session, name: str, language: str) -> None:
        """Remember the clerk and the language in the browser."""
        # With the same secret: forms that are open in other tabs stay valid.
        self.sessions.begin(response, session.role, name, session.secret)
        if language in LANGUAGES:
            secure = self._settings.http.certificate is not None
            response.set_cookie(
                self._language_cookie, language, max_age=_YEAR_SECONDS, httponly=True, samesite="strict", secure=secure
            )

    @property
    def _language_cookie(self) -> str:
        return f"{self.sessions.cookie}_language"

    def show(
        self, request: Request, template: str, /, *, status: int = 200, bare: bool = False, **values: Any
    ) -> Response:
        """A page, or a part of one, in the language of the clerk. `bare`: without anything from the database."""
        session = None if bare else self.sessions.of(request)
        language = self._chosen_language(request) or (languages.ENGLISH if bare else self.language(request))
        frame = self._frame(request, session, language)
        return page(_environment(language.code), template, status=status, **{**frame, **values})

    def errors(self, request: Request, refusal: InputRejected | None) -> dict[str, Any]:
        """The reasons of a refusal by the field that they are shown beside, as the template of a form takes them."""
        by_field: dict[str, list[reasons.ShownReason]] = {}
        for reason in reasons.shown(self.language(request), () if refusal is None else refusal.reasons):
            by_field.setdefault(reason.field, []).append(reason)
        return {"errors": by_field}

    def done(self, path: str, done: str) -> Response:
        """Lead to a page that says what was done."""
        self.changes.note()
        mark = "&" if "?" in path else "?"
        return RedirectResponse(f"{path}{mark}done={done}", 303)

    def _frame(self, request: Request, session: Session | None, language: Language) -> dict[str, Any]:
        """The values that every page needs."""
        path = request.url.path
        common: dict[str, Any] = {
            "language": language.code,
            "languages": list(LANGUAGES.values()),
            "server_name": self.name,
            "signed_in": session is not None,
            "operator": "" if session is None else session.name,
            "navigation": [],
            "events_url": None,
            "connection": CONNECTED,
            "done": request.query_params.get("done", ""),
            "path": path,
            "form_key": "" if session is None else self.sessions.form_key(session),
            "show_reasons": partial(reasons.shown, language),
            "date": partial(languages.date_text, language),
            "number": partial(languages.number_text, language),
            "money": partial(languages.money_text, language),
        }
        if session is None:
            return common
        self.changes.start()
        counts = str(self.changes.counts)
        zone = self.zone()
        return common | {
            "navigation": _navigation(language, path, to_correct(self.attention())),
            "events_url": f"/events?seen={counts}",
            "connection": self.connection_state(),
            "time": lambda at: languages.time_text(language, at, zone),
        }

    def attention(self) -> Attention:
        """What needs a clerk, read again after each change."""
        counts = str(self.changes.counts)
        with self._attending:
            if self._attention is None or self._attention[0] != counts:
                self._attention = (counts, needing_attention(self.channel()))
            return self._attention[1]

    def connection_state(self) -> ConnectionState:
        """Whether the store reaches headquarters."""
        return self.connection.state(self.channel())


@cache
def _environment(language: str) -> Environment:
    return template_environment(_TEMPLATES, translations=languages.translations(language))


def _navigation(language: Language, path: str, attention: int) -> list[dict[str, Any]]:
    """The entries of the head, of which one is the current page."""
    _ = languages.translations(language.code).gettext
    return [
        {"url": "/", "label": _("Customers"), "current": path == "/" or path.startswith("/customers")},
        {"url": "/sales", "label": _("Sales"), "current": path.startswith("/sales")},
        {"url": "/day", "label": _("End of day"), "current": path.startswith("/day")},
        {
            "url": "/attention",
            "label": _("To correct"),
            "current": path.startswith("/attention"),
            "fragment": "/parts/attention",
            "on": "store",
            "count": badge(attention),
        },
    ]


def _is_entered(name: str) -> bool:
    """True for a field of a form that a clerk fills in."""
    return name not in _HIDDEN and not name.startswith("was.")


def waiting_for(attention: Attention) -> dict[str, list[TransactionView]]:
    """The blocked orders and sales of each customer that is rejected: correcting the customer frees them."""
    waiting: dict[str, list[TransactionView]] = {view.customer_id: [] for view in attention.rejected}
    for sale in attention.transactions:
        if sale.status is TransactionStatus.BLOCKED and sale.customer and sale.customer.customer_id in waiting:
            waiting[sale.customer.customer_id].append(sale)
    return waiting


def to_correct(attention: Attention) -> int:
    """How many entries the list of what needs a clerk has."""
    return len(attention) - sum(map(len, waiting_for(attention).values()))


def badge(count: int) -> Markup:
    """A number beside an entry of the head; nothing for none."""
    return Markup('<span class="badge">{}</span>').format(count) if count else Markup()
