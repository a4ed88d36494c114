"""Signing in with a token and a name, and signing out."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from tenten.rules.operator_rule import operator_violations
from tenten.web.dashboard.access import TOKEN, Role, Visitor
from tenten.web.dashboard.actions import Action
from tenten.web.dashboard.site import Site
from tenten.web.pages.login import is_own_page


def sign_in_routes(site: Site) -> APIRouter:
    """`/login` and `/logout`."""
    router = APIRouter(include_in_schema=False)
    sessions = site.access.sessions

    def form(status: int = 200, **values: Any) -> Response:
        shown = {"name": "", "token": "", "next": "/", "name_error": "", "token_error": "", **values}
        return site.page(None, "sign_in.html", "", status=status, **shown)

    @router.get("/login")
    def show(token: str = "", next: str = "/") -> Response:  # noqa: A002 - the name in the address
        """The form, filled in with the token of a link that `tenten up` has printed."""
        return form(token=token, next=next)

    @router.post("/login")
    def begin(
        token: Annotated[str, Form()] = "",
        name: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "/",  # noqa: A002 - the name in the form
    ) -> Response:
        """Begin a session, and show the page that was asked for."""
        name = name.strip()
        role = sessions.role_of(token.strip())
        if role is None:
            return form(401, name=name, next=next, token_error="This token is not accepted.")  # noqa: S106 - a sentence
        broken = [violation.text for violation in operator_violations(name)]
        if not name or broken:
            error = broken[0] if broken else "Give your name."
            return form(422, name=name, token=token.strip(), next=next, name_error=error)
        visitor = Visitor(role=Role(role), name=name, via=TOKEN, form_key="")
        if visitor.is_operator:
            with site.actions.recorded(visitor, Action.SIGN_IN, visitor.role):
                pass
        response = RedirectResponse(next if is_own_page(next) else "/", 303)
        sessions.begin(response, role, name)
        return response

    @router.post("/logout")
    def end(request: Request) -> Response:
        response = RedirectResponse("/login", 303)
        sessions.end(request, response)
        return response

    return router
