"""What needs a clerk: rejected and held changes; and the parts of the frame that follow the database."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from sse_starlette import EventSourceResponse
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tenten.web.pages.login import NAME_CHARACTERS_MAX
from tenten.web.pages.page_streams import PageStreams
from tenten.web.store_screen.day_pages import day_numbers, named_sales
from tenten.web.store_screen.screen import Posted, Screen, badge, to_correct, waiting_for

_PING_SECONDS = 15


def attention_routes(screen: Screen) -> APIRouter:
    """The list of changes that need a clerk."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)

    @router.get("/attention")
    def attention(request: Request) -> Response:
        """Rejected changes to correct or discard, and those that headquarters holds."""
        template = "attention_part.html" if "x-fragment" in request.headers else "attention.html"
        return screen.show(
            request,
            template,
            attention=screen.attention(),
            waiting_for=waiting_for(screen.attention()),
            numbers=day_numbers(screen),
            sales_of=partial(named_sales, screen),
        )

    @router.get("/parts/attention")
    def count() -> Response:
        """The number in the head of each page."""
        return HTMLResponse(str(badge(to_correct(screen.attention()))), headers={"Cache-Control": "no-store"})

    return router


def frame_routes(screen: Screen) -> APIRouter:
    """The clerk, the banner and the events of every page."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    streams = PageStreams()
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/parts/connection")
    def connection(request: Request) -> Response:
        """The banner about the connection."""
        return screen.show(request, "connection.html")

    @router.get("/events")
    async def events(request: Request, seen: str = "", last_event_id: Annotated[str, Header()] = "") -> Response:
        """What has changed since the page was rendered, or since the last event."""
        session = (await screen.session(request)).secret
        if (refusal := streams.refusal(session)) is not None:
            return refusal
        changes = screen.changes.events(last_event_id or seen)
        followed = streams.follow(session, lambda: screen.sessions.of(request) is not None, changes)
        return EventSourceResponse(followed, ping=_PING_SECONDS)

    @router.get("/clerk")
    def clerk_form(request: Request) -> Response:
        """Who works here, and in which language."""
        return screen.show(request, "clerk.html")

    @router.post("/clerk")
    def clerk(posted: AForm) -> Response:
        """Remember the clerk and the language."""
        response = RedirectResponse("/", 303)
        name = posted.text("name").strip()[:NAME_CHARACTERS_MAX]
        screen.remember(response, posted.session, name, posted.text("language"))
        return response

    return router
