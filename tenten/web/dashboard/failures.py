"""Refusals as pages: what went wrong, and that nothing was changed."""

from typing import Final
from urllib.parse import urlencode

from confluent_kafka import KafkaException
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tenten.runtime.error_codes import is_data_error
from tenten.runtime.errors import DatabaseRefused, InputRejected, TentenError
from tenten.status.servers import database_problem, kafka_problem
from tenten.web.dashboard.access import NotAllowed
from tenten.web.dashboard.site import Site
from tenten.web.pages.login import ForeignForm, SignInFirst
from tenten.web.serving.problems import PROBLEM, problem

FRAGMENT = "x-fragment"
"""The header with which the script asks for a part of a page."""


_PAGES: Final = {
    404: ("Not found", "There is nothing at this address."),
    405: ("Not possible", "This address does not take such a request: go back, and begin from a page of the menu."),
}
"""Title and text by status."""


class NotFound(Exception):
    """There is no such thing; the text says so."""


def answer_with_pages(app: FastAPI, site: Site) -> None:
    """Answer refusals with a page; those of `/api` stay documents."""

    def refused(request: Request, status: int, title: str, text: str) -> HTMLResponse:
        try:
            visitor = site.access.visitor(request)
        except (SignInFirst, NotAllowed):
            visitor = None
        return site.page(visitor, "refused.html", "", status=status, title=title, text=text)

    @app.exception_handler(SignInFirst)
    async def on_stranger(request: Request, _: SignInFirst) -> Response:
        if request.headers.get(FRAGMENT):
            return Response(status_code=401)
        if request.method != "GET" or request.url.path in ("/", "/events") or request.url.path.startswith("/part/"):
            return RedirectResponse("/login", 303)
        page = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?{urlencode({'next': page})}", 303)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        """A program gets a document, a browser a page."""
        if "text/html" not in request.headers.get("accept", "") or error.status_code not in _PAGES:
            document = problem(error.status_code, str(error.detail))
            return JSONResponse(document, error.status_code, error.headers, media_type=PROBLEM)
        answer = refused(request, error.status_code, *_PAGES[error.status_code])
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def on_malformed(request: Request, _: RequestValidationError) -> Response:
        return refused(request, 404, *_PAGES[404])

    @app.exception_handler(ForeignForm)
    async def on_foreign_form(request: Request, _: ForeignForm) -> Response:
        text = "The form is not from a page of this session: go back, load the page again, and repeat it."
        return refused(request, 403, "Not accepted", text)

    @app.exception_handler(NotAllowed)
    async def on_not_allowed(request: Request, error: NotAllowed) -> Response:
        return refused(request, 403, "Not allowed", str(error))

    @app.exception_handler(NotFound)
    async def on_missing(request: Request, error: NotFound) -> Response:
        return refused(request, 404, "Not found", str(error))

    @app.exception_handler(TentenError)
    async def on_refusal(request: Request, error: TentenError) -> Response:
        text = "; ".join(reason.text for reason in error.reasons) if isinstance(error, InputRejected) else str(error)
        status = 503 if isinstance(error, DatabaseRefused) else 409
        return refused(request, status, "Nothing was changed", text)

    @app.exception_handler(DBAPIError)
    async def on_database(request: Request, error: DBAPIError) -> Response:
        if is_data_error(error):
            return refused(request, 404, "Not found", "The address has a value that nothing here can have.")
        text = database_problem(site.settings.headquarters_database(), error)
        return refused(request, 503, "The database does not answer", text)

    @app.exception_handler(KafkaException)
    async def on_kafka(request: Request, error: KafkaException) -> Response:
        return refused(request, 503, "Kafka does not answer", kafka_problem(site.settings, error))
