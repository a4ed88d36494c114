"""The application of the dashboard: its pages, live updates, and what it needs to run."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from sqlalchemy import Engine
from starlette.responses import Response, StreamingResponse

from tenten.web.apps import Served
from tenten.web.dashboard.access import Access
from tenten.web.dashboard.actions import ActionLog
from tenten.web.dashboard.change_pages import change_routes
from tenten.web.dashboard.channel_pages import channel_routes
from tenten.web.dashboard.check_pages import check_routes
from tenten.web.dashboard.customer_pages import customer_routes
from tenten.web.dashboard.dead_letter_batches import dead_letter_batch_routes
from tenten.web.dashboard.dead_letter_pages import dead_letter_routes
from tenten.web.dashboard.failures import answer_with_pages
from tenten.web.dashboard.overview_pages import overview_routes
from tenten.web.dashboard.sign_in import sign_in_routes
from tenten.web.dashboard.site import Site, make_environment
from tenten.web.dashboard.snapshot import Snapshots
from tenten.web.dashboard.transaction_pages import transaction_routes
from tenten.web.dashboard.watch import KafkaWatch
from tenten.web.pages.page_streams import PageStreams
from tenten.web.pages.rendering import static_files
from tenten.web.pages.sessions import Sessions

_LOOK_SECONDS: Final = 0.5
_STREAM_SECONDS_MAX: Final = 600.0
"""A browser then asks again, which needs a session that is still valid."""

_SILENT_SECONDS: Final = 15.0
"""A comment is sent after this time, so that a browser or a proxy notices a broken connection."""


def add_dashboard(app: FastAPI, served: Served, engine: Engine, tokens: Mapping[str, str]) -> None:
    """Add the pages to an application, and start what they read from."""
    settings = served.settings
    sessions = Sessions(
        f"dashboard_{served.address.port}",
        tokens,
        secure=settings.http.is_secure,
    )
    watch = KafkaWatch(settings, engine, served.ending)
    snapshots = Snapshots(settings, engine, watch, served.ending)
    site = Site(
        settings=settings,
        engine=engine,
        access=Access(sessions, settings.http),
        actions=ActionLog(engine=engine, days=settings.headquarters.actions_days),
        snapshots=snapshots,
        environment=make_environment(),
        ending=served.ending,
    )
    answer_with_pages(app, site)
    for routes in (
        sign_in_routes,
        overview_routes,
        customer_routes,
        change_routes,
        transaction_routes,
        dead_letter_routes,
        dead_letter_batch_routes,
        channel_routes,
        check_routes,
        _event_routes,
    ):
        app.include_router(routes(site))
    app.mount("/static", static_files())
    watch.start()
    snapshots.start()


def _event_routes(site: Site) -> APIRouter:
    """`/events`: server-sent events with the names of the parts that have changed."""
    router = APIRouter(include_in_schema=False)
    streams = PageStreams()

    @router.get("/events")
    async def events(request: Request) -> Response:
        # The key of its forms is different for each session, and for each user of a proxy.
        session = site.access.visitor(request).form_key
        if (refusal := streams.refusal(session)) is not None:
            return refusal
        changes = streams.follow(session, lambda: site.access.is_signed_in(request), _changes(site))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(changes, media_type="text/event-stream", headers=headers)

    return router


async def _changes(site: Site) -> AsyncGenerator[str]:
    """The names of parts, as they change, until the server or the browser ends, or some minutes are over."""
    known = dict(site.snapshots.listen())
    yield "retry: 1000\n\n"
    silent_seconds = 0.0
    until = time.monotonic() + _STREAM_SECONDS_MAX
    while not site.ending.is_set() and time.monotonic() < until:
        await asyncio.sleep(_LOOK_SECONDS)
        versions = site.snapshots.listen()
        changed = [name for name, version in versions.items() if known.get(name) != version]
        silent_seconds += _LOOK_SECONDS
        if changed:
            known = dict(versions)
            silent_seconds = 0.0
            yield f"event: change\ndata: {' '.join(changed)}\n\n"
        elif silent_seconds >= _SILENT_SECONDS:
            silent_seconds = 0.0
            yield ": still here\n\n"
