"""Who visits the dashboard, and what they may do.

A viewer sees no personal data and acts on nothing; an operator may do both, and what they do is recorded under their
name. A visitor presents one of two tokens, or is named by a proxy that has authenticated them.

A header is easily forged, so a proxy's is believed only from the addresses of the settings, by the address of the
connection itself, and only if it is there once: a proxy that adds its header to one of the browser's is not believed.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Final

from fastapi import Request

from tenten.rules.operator_rule import operator_violations
from tenten.runtime.settings.http import HttpSettings
from tenten.web.pages.login import ForeignForm, SignInFirst
from tenten.web.pages.sessions import Session, Sessions
from tenten.web.serving.tokens import is_token

TOKEN: Final = "token"  # noqa: S105 - a way to sign in
PROXY: Final = "proxy"


class Role(StrEnum):
    """What a visitor may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class NotAllowed(Exception):
    """The visitor is a viewer, or is not believed; the text says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """The person at a browser."""

    role: Role
    name: str
    via: str
    """`TOKEN` or `PROXY`."""
    form_key: str
    """The hidden field of every form of this visitor."""

    @property
    def is_operator(self) -> bool:
        """Whether the visitor may see personal data, and act."""
        return self.role is Role.OPERATOR


class Access:
    """Knows visitors by their session, by a token, or by the header of a proxy."""

    def __init__(self, sessions: Sessions, http: HttpSettings) -> None:
        self.sessions = sessions
        self._http = http

    def visitor(self, request: Request) -> Visitor:
        """Who visits. Raises: `SignInFirst`; `NotAllowed` for a header of a proxy that names no user."""
        if (user := self._user_of_proxy(request)) is not None:
            role = Role.OPERATOR if user in self._http.proxy_operators else Role.VIEWER
            # Nobody but this server can make the key of a form, so it need not be random.
            return self._visitor(Session(role=role, secret=f"{PROXY}.{role}.{user}", name=user), PROXY)
        session = self.sessions.of(request)
        if session is None:
            raise SignInFirst
        return self._visitor(session, TOKEN)

    def is_signed_in(self, request: Request) -> bool:
        """Whether the visitor's session has neither ended nor expired."""
        return self._user_of_proxy(request) is not None or self.sessions.of(request) is not None

    def sender(self, request: Request, form_key: str) -> Visitor:
        """Who has sent a form. Raises: as `visitor`; `ForeignForm`."""
        visitor = self.visitor(request)
        if not is_token(form_key, visitor.form_key):
            raise ForeignForm
        return visitor

    def operator(self, request: Request, form_key: str) -> Visitor:
        """The operator who has sent a form. Raises: as `sender`; `NotAllowed`."""
        return _operator(self.sender(request, form_key))

    def operator_of_page(self, request: Request) -> Visitor:
        """The operator who asks for a page with a form. Raises: as `visitor`; `NotAllowed` for a viewer."""
        return _operator(self.visitor(request))

    def may_read(self, request: Request) -> bool:
        """Whether a program has presented a token: `Authorization: Bearer ...`."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.sessions.role_of(given.strip()) is not None

    def _visitor(self, session: Session, via: str) -> Visitor:
        return Visitor(role=Role(session.role), name=session.name, via=via, form_key=self.sessions.form_key(session))

    def _user_of_proxy(self, request: Request) -> str | None:
        """The user whom a proxy has authenticated; None without such a proxy. Raises: `NotAllowed`."""
        header = self._http.proxy_user_header
        given = [] if header is None else request.headers.getlist(header)
        if not given or not self._is_proxy(request):
            return None
        if len(given) > 1:
            raise NotAllowed(f"The header {header} is there more than once: let the proxy replace the browser's.")
        user = _text(given[0])
        if not user or any(operator_violations(user)):
            raise NotAllowed(f"The header {header} does not name a user.")
        return user

    def _is_proxy(self, request: Request) -> bool:
        if request.client is None:
            return False
        try:
            address = ip_address(request.client.host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._http.proxy_addresses)


def _operator(visitor: Visitor) -> Visitor:
    if not visitor.is_operator:
        raise NotAllowed("A viewer may not act, and sees no personal data: sign in with the operator's token.")
    return visitor


def _text(value: str) -> str:
    """The value of a header, which may be in UTF-8."""
    try:
        return value.encode("latin-1").decode().strip()
    except UnicodeDecodeError:
        return value.strip()
