"""Signing in with the access token, and signing out."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from jinja2 import Environment
from starlette.responses import RedirectResponse, Response

from tenten.web.pages.rendering import page
from tenten.web.pages.sessions import Session, Sessions


class SignInFirst(Exception):
    """The request has no session: its answer is the form for the token."""


class ForeignForm(Exception):
    """A form that is not from a page of this session."""


def session_of(sessions: Sessions, request: Request) -> Session:
    """The session of the request. Raises: `SignInFirst`."""
    session = sessions.of(request)
    if session is None:
        raise SignInFirst
    return session


def check_form(sessions: Sessions, session: Session, form_key: str) -> None:
    """Raises: `ForeignForm` unless the form is from a page of this session."""
    if not sessions.is_form_key(session, form_key):
        raise ForeignForm


def login_routes(sessions: Sessions, environment: Environment, common: dict[str, Any]) -> APIRouter:
    """`/login` and `/logout`. `common`: the values that every page of this server needs."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def form(token: str = "") -> Response:
        """The form; with the token in the address, as `tenten up` prints it, the session begins at once."""
        if token:
            return _begin(token)
        return page(environment, "login.html", **common, failed=False)

    @router.post("/login")
    def begin(token: Annotated[str, Form()] = "") -> Response:
        """Begin a session."""
        return _begin(token.strip())

    @router.post("/logout")
    def end() -> Response:
        """End the session; without the key of a form, because a foreign page gains nothing by it."""
        response = RedirectResponse("/login", 303)
        sessions.end(response)
        return response

    def _begin(token: str) -> Response:
        role = sessions.role_of(token)
        if role is None:
            return page(environment, "login.html", status=401, **common, failed=True)
        response = RedirectResponse("/", 303)
        sessions.begin(response, role)
        return response

    return router
