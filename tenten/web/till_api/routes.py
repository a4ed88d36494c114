"""The router of the API for tills."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tenten.web.events.streams import EventStreams, last_event_id
from tenten.web.serving.unknown import Unknown
from tenten.web.till_api import examples
from tenten.web.till_api.access import token_required
from tenten.web.till_api.customers import customer_routes
from tenten.web.till_api.days import day_routes
from tenten.web.till_api.openapi import description, header, with_headers
from tenten.web.till_api.outputs import refusals
from tenten.web.till_api.query import known_query
from tenten.web.till_api.till import Till
from tenten.web.till_api.transactions import order_routes, sale_routes


def till_api(till: Till, streams: EventStreams, token: str) -> APIRouter:
    """/v1 and /openapi.json of a channel; /v1 needs this token."""
    api = APIRouter(dependencies=[Depends(token_required(token)), Depends(known_query)])
    for routes in (customer_routes, order_routes, sale_routes, day_routes):
        api.include_router(routes(till))
    api.include_router(_event_routes(streams))
    document = description(api.routes)
    router = APIRouter()
    router.include_router(api)

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document)

    router.routes.append(Route("/v1/{rest:path}", Unknown(api)))
    return router


def _event_routes(streams: EventStreams) -> APIRouter:
    router = APIRouter(prefix="/v1/events", tags=["events"])
    described: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "Server-sent events, without end. `reset`: events are missing, read everything again.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": examples.EVENTS}},
        }
    }

    @router.get(
        "",
        operation_id="follow_events",
        responses=described | refusals(),
        response_class=Response,
        openapi_extra=with_headers(
            header("Last-Event-ID", "the `id` of the last event that the client has; default: from now on")
        ),
    )
    async def follow(request: Request) -> Response:
        """Follow what headquarters' replies change: `numbered`, `synchronized`, `rejected`, `held`, `erased` customers;
        `posted`, `waiting`, `blocked`, `rejected` orders, sales and ends of day. Nothing is missed across restarts.
        """
        return streams.response(last_event_id(request))

    return router
