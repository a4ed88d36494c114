"""Refusals as `application/problem+json` (RFC 9457): every error of the API, in one form.

{"type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": "...",
 "errors": [{"field": "email", "code": "invalid_email", "text": "..."}]}
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from structlog import get_logger

from tenten.failure_messages import explain
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import (
    CustomerChanged,
    DatabaseRefused,
    InputRejected,
    NoSuchCustomer,
    NoSuchTransaction,
    SettingsError,
    TentenError,
)
from tenten.schemas.messages import Reason, reasons_as_json
from tenten.web.serving.request_errors import reason_of

log = get_logger(__name__)

PROBLEM: Final = "application/problem+json"

_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Those that later releases of Python have changed."""

_STATUSES: Final[Mapping[type[TentenError], int]] = {
    DatabaseRefused: 503,
    SettingsError: 503,
    NoSuchCustomer: 404,
    NoSuchTransaction: 404,
    CustomerChanged: 412,
}
"""By kind of refusal; others are a conflict."""

_RETRY_AFTER: Final = {"Retry-After": "1"}


class Problem(HTTPException):
    """A refusal with this status; `more` are further members of the document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[Reason] = (),
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = tuple(errors)
        self.more = more


def title_of(status: int) -> str:
    """The phrase of a status (RFC 9110), whatever Python's release."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def problem(status: int, detail: str, errors: Iterable[Reason] = (), **more: Any) -> dict[str, Any]:
    """The document of a refusal."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": detail,
    }
    listed = reasons_as_json(errors)
    return document | ({"errors": listed} if listed else {}) | more


def answer_with_problems(app: FastAPI) -> None:
    """Answer every error of this application with a problem document."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> JSONResponse:
        document = problem(error.status_code, error.detail, error.errors, **error.more)
        return _response(error.status_code, document, error.headers)

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        return _response(error.status_code, problem(error.status_code, str(error.detail)), error.headers)

    @app.exception_handler(InputRejected)
    async def on_rejection(_: Request, error: InputRejected) -> JSONResponse:
        return _response(422, problem(422, "Nothing was written: see `errors`.", error.reasons))

    @app.exception_handler(RequestValidationError)
    async def on_malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        reasons = [reason_of(found) for found in error.errors()]
        return _response(422, problem(422, "The request is not as the API describes it.", reasons))

    @app.exception_handler(TentenError)
    async def on_refusal(_: Request, error: TentenError) -> JSONResponse:
        status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 409)
        detail = str(error)
        if status == 503:
            # It may begin with the name of a file.
            return _response(status, problem(status, detail), _RETRY_AFTER)
        return _response(status, problem(status, f"{detail[:1].upper()}{detail[1:]}."))

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        if is_transient(error):
            # The database is away, or all of its connections are in use.
            detail = explain(error) or "The database does not answer in time."
            return _response(503, problem(503, detail), _RETRY_AFTER)
        log.error("http_request_failed", path=_route(request), exc_info=error)
        return _response(500, problem(500, "The request failed; the log of the process says why."))


def _route(request: Request) -> str:
    """The path as declared, without ids."""
    route = request.scope.get("route")
    return str(getattr(route, "path", "?"))


def _response(status: int, document: dict[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(document, status, dict(headers or {}), media_type=PROBLEM)
