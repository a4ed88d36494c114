"""The access token of the API, as a bearer token (RFC 6750)."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenten.web.serving.problems import Problem
from tenten.web.serving.tokens import is_token

_SCHEME = HTTPBearer(
    auto_error=False, scheme_name="token", description="The text in the file `api.token` of the store."
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_SCHEME)]


def token_required(token: str) -> Callable[[Credentials], Awaitable[None]]:
    """A dependency that refuses requests without this token: `Problem` 401."""

    async def check(credentials: Credentials) -> None:
        if credentials is None or not is_token(credentials.credentials, token):
            detail = "The token is wrong." if credentials else "Send the token: Authorization: Bearer TOKEN."
            challenge = 'Bearer error="invalid_token"' if credentials else "Bearer"
            raise Problem(401, detail, headers={"WWW-Authenticate": challenge})

    return check
