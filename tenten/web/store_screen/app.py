"""The screen as an application, with its errors as pages."""

from typing import Any, Final
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from structlog import get_logger

from tenten.failure_messages import explain
from tenten.runtime.errors import (
    DatabaseRefused,
    InputRejected,
    NoSuchCustomer,
    NoSuchTransaction,
    SettingsError,
    TentenError,
)
from tenten.web.apps import Served
from tenten.web.pages.login import ForeignForm, SignInFirst, login_routes
from tenten.web.pages.rendering import static_files
from tenten.web.serving.problems import PROBLEM, problem
from tenten.web.serving.writers import Writers
from tenten.web.store_screen import attention_pages, contact_pages, customer_pages, day_pages, selling_pages
from tenten.web.store_screen.screen import Screen

log = get_logger(__name__)

_ROUTES: Final = (
    customer_pages.new_customer_routes,
    customer_pages.customer_routes,
    customer_pages.edit_routes,
    contact_pages.address_routes,
    contact_pages.contact_routes,
    selling_pages.selling_routes,
    day_pages.day_routes,
    attention_pages.attention_routes,
    attention_pages.frame_routes,
)


def store_screen(served: Served, channel: str, engine: Engine, token: str, writers: Writers | None = None) -> FastAPI:
    """The screen of a channel's clerks; `token` lets them in, `writers` are those of the server. Mount it behind all
    other routes.
    """
    screen = Screen(served, channel, engine, token, writers or Writers())
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", static_files())
    app.include_router(login_routes(screen.sessions, screen.show, asks_name=True))
    for routes in _ROUTES:
        app.include_router(routes(screen))
    _answer_with_pages(app, screen)
    return app


def _answer_with_pages(app: FastAPI, screen: Screen) -> None:
    """Answer every error with a page; a program that asks for something else than a page gets a problem document."""

    def answer(request: Request, status: int, what: str, **values: Any) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            # A page about a database that does not answer must not ask it.
            return screen.show(request, "error.html", status=status, what=what, bare=status >= 500, **values)
        detail = "There is nothing at this address." if status == 404 else "The screen answers browsers."
        return JSONResponse(problem(status, detail), status, media_type=PROBLEM)

    @app.exception_handler(SignInFirst)
    def on_stranger(request: Request, _: SignInFirst) -> Response:
        if "x-fragment" in request.headers or request.url.path == "/events":
            return JSONResponse(problem(401, "Sign in first."), 401, media_type=PROBLEM)
        if request.method != "GET" or request.url.path == "/":
            # What is searched for is in no address.
            return RedirectResponse("/login", 303)
        page = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?{urlencode({'next': page})}", 303)

    @app.exception_handler(ForeignForm)
    def on_foreign_form(request: Request, _: ForeignForm) -> Response:
        return answer(request, 403, "foreign_form", entered=getattr(request.state, "entered", {}))

    @app.exception_handler(HTTPException)
    def on_http(request: Request, error: HTTPException) -> Response:
        what = {404: "not_found", 503: "unavailable"}.get(error.status_code, "not_understood")
        return answer(request, error.status_code, what)

    @app.exception_handler(RequestValidationError)
    def on_malformed(request: Request, _: RequestValidationError) -> Response:
        return answer(request, 422, "not_understood")

    @app.exception_handler(TentenError)
    def on_refusal(request: Request, error: TentenError) -> Response:
        if isinstance(error, NoSuchCustomer | NoSuchTransaction):
            return answer(request, 404, "not_here")
        if isinstance(error, InputRejected):
            return answer(request, 422, "rejected", **screen.errors(request, error))
        if isinstance(error, DatabaseRefused | SettingsError):
            return answer(request, 503, "unavailable")
        return answer(request, 409, "not_understood")

    @app.exception_handler(Exception)
    def on_bug(request: Request, error: Exception) -> Response:
        if explain(error) is not None:
            return answer(request, 503, "unavailable")
        log.error("http_request_failed", path="screen", exc_info=error)
        return answer(request, 500, "failed")
