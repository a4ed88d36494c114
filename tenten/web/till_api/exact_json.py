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
    except (ValueError, RecursionError, InvalidOperation):
        raise Problem(400, "The body is not valid JSON in UTF-8.") from None


def _decimal(text: str) -> Decimal:
    number = Decimal(text) if len(text) <= _NUMBER_CHARACTERS_MAX else Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > _EXPONENT_MAX:
        raise ValueError("a number is too long")
    return number


def _integer(text: str) -> int:
    if len(text) > _NUMBER_CHARACTERS_MAX:
        raise ValueError("a number is too long")
    return int(text)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
