"""The overview: stores, the worst first, and headquarters; as a page, as a part of it, and as JSON."""

from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.encoders import jsonable_encoder
from markupsafe import Markup
from starlette.responses import HTMLResponse, JSONResponse, Response

from tenten.web.dashboard.access import Visitor
from tenten.web.dashboard.site import Site
from tenten.web.dashboard.snapshot import Snapshot
from tenten.web.dashboard.sparkline import sparkline
from tenten.web.dashboard.stores import State
from tenten.web.serving.problems import Problem
from tenten.workers import AT_HEADQUARTERS

_WANTED_MAX: Final = 100
_ON = "stores problems workers numbers times changes transactions letters channels"


def overview_routes(site: Site) -> APIRouter:
    """`/`, its part, and `/api/overview`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def whole(request: Request) -> Response:
        visitor = site.access.visitor(request)
        wanted = _wanted(request)
        fragment = f"/part/?{urlencode({'store': wanted})}" if wanted else "/part/"
        return site.page(visitor, "live.html", "/", content=_rendered(site, visitor, wanted), fragment=fragment, on=_ON)

    @router.get("/part/")
    def part(request: Request) -> Response:
        text = _rendered(site, site.access.visitor(request), _wanted(request))
        return HTMLResponse(text, headers={"Cache-Control": "no-store"})

    @router.get("/api/overview")
    def document(request: Request) -> JSONResponse:
        if not site.access.may_read(request):
            raise Problem(
                401,
                "Present the viewer's or the operator's token.",
                headers={"WWW-Authenticate": 'Bearer realm="tenten"'},
            )
        return JSONResponse(_document(site.snapshots.current()), headers={"Cache-Control": "no-store"})

    return router


def _wanted(request: Request) -> str:
    """A part of the names of the stores that are wanted; empty: all."""
    return request.query_params.get("store", "").strip()[:_WANTED_MAX]


def _rendered(site: Site, visitor: Visitor, wanted: str) -> Markup:
    """The same text for all browsers of a role that show all stores, rendered once for each snapshot."""
    snapshot = site.snapshots.current()
    if wanted:
        return Markup(site.part(visitor, "overview.html", **_values(snapshot, wanted)))  # noqa: S704 - it is escaped
    if visitor.role not in snapshot.rendered:
        snapshot.rendered[visitor.role] = site.part(visitor, "overview.html", **_values(snapshot, ""))
    return Markup(snapshot.rendered[visitor.role])  # noqa: S704 - it is escaped


def _values(snapshot: Snapshot, wanted: str) -> dict[str, Any]:
    database = snapshot.database
    times = snapshot.times
    text = wanted.lower()
    matching = [row for row in snapshot.stores if text in row.channel_id.lower() or text in row.legal_entity.lower()]
    return {
        "now": snapshot.taken_at,
        "stores": snapshot.stores,
        "wanted": wanted,
        "shown": [row for row in matching if not row.is_unheard],
        "unheard": [row for row in matching if row.is_unheard],
        "counts": {
            name: snapshot.count(state)
            for name, state in (
                ("bad", State.BAD),
                ("warn", State.WARN),
                ("unheard", State.UNHEARD),
                ("good", State.GOOD),
            )
        },
        "database": database,
        "kafka": snapshot.kafka,
        "workers": [
            (worker.name, snapshot.kafka.members.get(worker.name), snapshot.kafka.lags.get(worker.name))
            for worker in AT_HEADQUARTERS
        ],
        "numbers": {} if database is None else database.read.status.number_sequences,
        "held": None if database is None else database.read.status.held,
        "transactions": None if database is None else database.read.transactions,
        "letters": None if snapshot.letters is None else len(snapshot.open_letters),
        "rejected": sum(row.rejected for row in snapshot.stores),
        "times": times,
        "spark": None if times is None else sparkline(times.minutes, snapshot.taken_at),
        "problems": snapshot.problems,
    }


def _document(snapshot: Snapshot) -> Any:
    """The overview for programs."""
    database = snapshot.database
    stores = [
        {
            **{name: value for name, value in asdict(row).items() if name not in ("state", "state_text")},
            "state": row.state_name,
            "state_text": row.state_text,
        }
        for row in snapshot.stores
    ]
    return jsonable_encoder(
        {
            "taken_at": snapshot.taken_at,
            "stores": stores,
            "problems": [asdict(problem) for problem in snapshot.problems],
            "workers": snapshot.kafka.members,
            "lags": snapshot.kafka.lags,
            "number_sequences": {}
            if database is None
            else {name: asdict(numbers) for name, numbers in database.read.status.number_sequences.items()},
            "held": 0 if database is None or database.read.status.held is None else database.read.status.held.events,
            "transactions": None
            if database is None or database.read.transactions is None
            else asdict(database.read.transactions),
            "blocked_statements": None if database is None else database.blocked,
            "dead_letters": None if snapshot.letters is None else len(snapshot.open_letters),
            "registration_times": None if snapshot.times is None else asdict(snapshot.times),
        }
    )
