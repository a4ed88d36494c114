"""The applications: what each process serves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from tenten.runtime.release import release
from tenten.runtime.settings import Settings
from tenten.web.events.feed import EventFeed
from tenten.web.events.streams import EventStreams
from tenten.web.health.checks import database_problem, group_problem
from tenten.web.health.observed import Observed
from tenten.web.health.registries import channel_registry, dashboard_registry, headquarters_registry
from tenten.web.health.routes import Check, health_routes
from tenten.web.serving.address import HttpAddress
from tenten.web.serving.head import HeadAsGet
from tenten.web.serving.problems import answer_with_problems
from tenten.web.serving.protection import Protection
from tenten.web.serving.rate import UNLIMITED, RateLimit
from tenten.web.serving.tokens import api_token
from tenten.web.serving.unknown import Unknown
from tenten.web.serving.writers import Writers
from tenten.web.till_api.routes import till_api
from tenten.web.till_api.till import Till
from tenten.workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What every application needs to know of its server."""

    settings: Settings
    address: HttpAddress
    ending: Event
    """Set when the server ends: endless responses must end then."""
    token_file: Path | None = None
    """The access token of a channel, where it is not beside the database."""


def headquarters_app(served: Served, worker: Worker, engine: Engine) -> ASGIApp:
    """Health and metrics of a worker of headquarters."""
    app = _application(f"tenten {worker.name}")
    checks: list[tuple[str, Check]] = [
        ("database", partial(database_problem, engine, "headquarters")),
        ("group", group_problem),
    ]
    registry = headquarters_registry(served.settings, worker, engine)
    app.include_router(health_routes(worker.name, checks, registry))
    return _protected(app, served)


def channel_app(served: Served, channel: str, engine: Engine) -> ASGIApp:
    """Health and metrics of a channel, its API for tills, and the screen of its clerks."""
    from tenten.web.store_screen.app import store_screen

    app = _application(f"tenten {channel}")
    checks = [("database", partial(database_problem, engine, "channel"))]
    health = health_routes(channel, checks, channel_registry(served.settings, channel, engine))
    app.include_router(health)
    token = api_token(served.settings, channel, served.token_file)
    feed = EventFeed(engine, channel, served.ending)
    writers = Writers()
    app.include_router(till_api(Till(served.settings, channel, engine, feed, writers), EventStreams(feed), token))
    app.router.routes += [Route(path, Unknown(health)) for path in UNLIMITED]
    # Behind all other routes: it answers every address that they do not.
    app.mount("/", store_screen(served, channel, engine, token, writers))
    return _protected(app, served)


def dashboard_app(served: Served, engine: Engine, tokens: Mapping[str, str]) -> ASGIApp:
    """Health and metrics of the dashboard, and its pages. `tokens`: by role, viewer and operator."""
    from tenten.web.dashboard.app import add_dashboard

    app = _application("tenten dashboard")
    checks = [("database", partial(database_problem, engine, "headquarters"))]
    app.include_router(health_routes("dashboard", checks, dashboard_registry()))
    add_dashboard(app, served, engine, tokens)
    return _protected(app, served)


def _application(title: str) -> FastAPI:
    app = FastAPI(title=title, version=release(), docs_url=None, redoc_url=None, openapi_url=None)
    # A redirect to the address without a slash would name the host of the request.
    app.router.redirect_slashes = False
    answer_with_problems(app)
    return app


def _protected(app: FastAPI, served: Served) -> ASGIApp:
    http = served.settings.http
    limited = RateLimit(Observed(_with_origins(app, http.origins)), http.requests_per_second_max)
    return Protection(HeadAsGet(limited), hosts_of(served.address, http.hosts), http.origins)


def _with_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application for web pages of these origins, too (CORS); they have no cookies of it, but may have a token."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PATCH"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "Last-Event-ID",
            "Prefer",
            "Tenten-Operator",
        ],
        expose_headers=["ETag", "Location", "Preference-Applied", "Retry-After"],
    )


def hosts_of(address: HttpAddress, more: Iterable[str]) -> frozenset[str]:
    """The names by which a server at this address is reached."""
    own = {"localhost", "127.0.0.1", "::1"} if address.is_loopback else {address.host}
    return frozenset({*own, *more})
