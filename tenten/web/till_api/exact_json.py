"""JSON whose decimals are exact: `4.10` is the decimal 4.10, never the binary number next to it."""

import json
from collections.abc import Callable, Coroutine
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from tenten.web.serving.problems import Problem

_NUMBER_CHARACTERS_MAX: Final = 400
_EXPONENT_MAX: Final = 400
"""As large and as small as binary numbers can be: rules refuse what is too large, and have to write it out for that."""


class ExactRequest(Request):
    """A request whose JSON has decimals."""

    async def body(self) -> bytes:
        """The body. Raises: `Problem` 415, for one that is not said to be JSON."""
        body = await super().body()
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise Problem(415, "Send Content-Type: application/json.")
        return body

    async def json(self) -> Any:
        """The body. Raises: `Problem` 400."""
        if not hasattr(self, "_exact"):
            self._exact = exact_json(await self.body())
        return self._exact


class ExactRoute(APIRoute):
    """A route that reads JSON exactly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with an `ExactRequest`."""
        handle = super().get_route_handler()

        async def handle_exactly(request: Request) -> Response:
            return await handle(ExactRequest(request.scope, request.receive))

        return handle_exactly


def exact_json(body: bytes) -> Any:
    """The JSON value. Raises: `Problem` 400, for what is not JSON and for numbers that are too long."""
    try:
        return json.loads(body, parse_float=_decimal, parse_int=_integer, parse_constant=_constant)
    except _TooLong:
        raise Problem(400, "A number is too long: at most 400 characters, and an exponent up to 400.") from None
    except (ValueError, RecursionError, InvalidOperation):
        raise Problem(400, "The body is not valid JSON in UTF-8.") from None


class _TooLong(Exception):
    """A number is too long."""


def _decimal(text: str) -> Decimal:
    number = Decimal(text) if len(text) <= _NUMBER_CHARACTERS_MAX else Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > _EXPONENT_MAX:
        raise _TooLong
    return number


def _integer(text: str) -> int:
    if len(text) > _NUMBER_CHARACTERS_MAX:
        raise _TooLong
    return int(text)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
