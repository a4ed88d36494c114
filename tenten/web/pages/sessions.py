"""Sessions of browsers: a signed cookie for those who have presented the access token.

The cookie says who, in which role, until when, and is signed with a key derived from the tokens: sessions survive a
restart, so that a clerk loses no form, and another token ends them all. A session whose person has signed out is
remembered until its cookies have expired, or the process ends. Cookies belong to a host and not to a port, hence a name
of its own for each server.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tenten.web.serving.tokens import is_token

SESSION_SECONDS: Final = 12 * 3_600

ENDED_MAX: Final = 10_000
"""Sessions that are remembered as ended; the oldest is forgotten for a further one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser that has presented a token."""

    role: str
    secret: str
    """Unique, and known to nobody but server and browser."""
    name: str = ""
    """The person's, as given at the sign-in; empty: not asked for."""


class Sessions:
    """Logs browsers in and knows them again. Thread-safe."""

    def __init__(self, server: str, tokens: Mapping[str, str], *, secure: bool) -> None:
        """`server`: a name for the cookie; `tokens`: by role; `secure`: whether TLS is in use."""
        self.cookie = f"tenten_{server}"
        self._tokens = dict(tokens)
        self._key = hashlib.sha256("\n".join(("session", server, *tokens.values())).encode()).digest()
        self._secure = secure
        self._lock = Lock()
        self._ended: dict[str, float] = {}
        """When the last cookie of an ended session expires, by its secret, the oldest first."""

    def role_of(self, token: str) -> str | None:
        """The role whose token this is; None for a wrong one. A token is too long to be guessed, so a wrong one locks
        nobody out: otherwise a stranger could.
        """
        for role, known in self._tokens.items():
            if is_token(token, known):
                return role
        return None

    def begin(self, response: Response, role: str, name: str = "", secret: str | None = None) -> None:
        """Give the browser a session in this role, of a person with this name; with the secret of an earlier one its
        forms stay valid.
        """
        encoded = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
        content = f"{role}.{int(time.time()) + SESSION_SECONDS}.{encoded}.{secret or secrets.token_urlsafe(18)}"
        response.set_cookie(
            self.cookie,
            f"{content}.{self._mac(content)}",
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=self._secure,
        )

    def end(self, request: Request, response: Response) -> None:
        """End the session of the request, whoever has its cookie, and let the browser forget it."""
        session = self.of(request)
        if session is not None:
            self._remember_as_ended(session.secret)
        response.delete_cookie(self.cookie, httponly=True, samesite="strict", secure=self._secure)

    def _remember_as_ended(self, secret: str) -> None:
        now = time.time()
        with self._lock:
            for other in [*self._ended]:
                if len(self._ended) < ENDED_MAX and self._ended[other] > now:
                    break
                del self._ended[other]
            # A cookie that was made a moment ago, with the secret of the session, expires last.
            self._ended[secret] = now + SESSION_SECONDS

    def of(self, request: Request) -> Session | None:
        """The session of the request; None without a valid one."""
        content, _, mac = request.cookies.get(self.cookie, "").rpartition(".")
        if not content or not hmac.compare_digest(mac.encode(), self._mac(content).encode()):
            return None
        role, expires, encoded, secret = content.split(".", 3)
        if role not in self._tokens or int(expires) < time.time() or secret in self._ended:
            return None
        name = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        return Session(role=role, secret=secret, name=name)

    def form_key(self, session: Session) -> str:
        """The hidden field by which a form proves that it is from a page of this session."""
        return self._mac(f"form.{session.secret}")

    def is_form_key(self, session: Session, given: str) -> bool:
        """Whether a form came with the key of this session."""
        return is_token(given, self.form_key(session))

    def _mac(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()
