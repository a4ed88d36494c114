"""Signing in with the access token, and signing out."""

from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from tenten.web.pages.sessions import Session, Sessions

NAME_CHARACTERS_MAX: Final = 64
"""As an operator's name."""


class SignInFirst(Exception):
    """The request has no session: its answer is the form for the token."""


class ForeignForm(Exception):
    """A form that is not from a page of this session."""


class ShowPage(Protocol):
    """Renders a template for a request, with the values that every page of the server needs."""

    def __call__(self, request: Request, template: str, /, *, status: int = 200, **values: Any) -> Response: ...


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


def is_own_page(path: str) -> bool:
    r"""True for a path on this server; a browser takes what begins with two slashes, of either kind, for a host.

    >>> is_own_page("/sales?day=2026-11-27"), is_own_page("//example.com"), is_own_page("/\\example.com")
    (True, False, False)
    """
    return path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()


def login_routes(sessions: Sessions, show: ShowPage, *, asks_name: bool = False) -> APIRouter:
    """`/login` and `/logout`. `asks_name`: whether a person who signs in gives a name, too."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def form(request: Request, token: str = "", next: str = "/") -> Response:  # noqa: A002 - the name in the address
        """The form; with the token in the address, as `tenten up` prints it, the session begins at once."""
        if token:
            return _begin(request, token, "", next)
        return show(request, "login.html", asks_name=asks_name, failed=False, name="", next=next)

    @router.post("/login")
    def begin(
        request: Request,
        token: Annotated[str, Form()] = "",
        name: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "/",  # noqa: A002 - the name in the form
    ) -> Response:
        """Begin a session, and show the page that was asked for."""
        return _begin(request, token.strip(), name.strip()[:NAME_CHARACTERS_MAX], next)

    @router.post("/logout")
    def end(request: Request) -> Response:
        """End the session; without the key of a form, because a foreign page gains nothing by it."""
        response = RedirectResponse("/login", 303)
        sessions.end(request, response)
        return response

    def _begin(request: Request, token: str, name: str, page: str) -> Response:
        role = sessions.role_of(token)
        if role is None:
            return show(request, "login.html", status=401, asks_name=asks_name, failed=True, name=name, next=page)
        response = RedirectResponse(page if is_own_page(page) else "/", 303)
        sessions.begin(response, role, name)
        return response

    return router
