"""The description of the API: OpenAPI 3.1."""

from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from tenten.runtime.release import release
from tenten.web.till_api.outputs import ProblemOutput

_SUMMARY = (
    "The API of a store for its tills. It works with or without a connection to headquarters. Times are ISO 8601 in "
    "UTC; decimals are exact, as JSON numbers or as text."
)


def header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """A header that an operation reads."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
    }


def with_headers(*headers: dict[str, Any]) -> dict[str, Any]:
    """The headers of an operation, for its description."""
    return {"parameters": list(headers)}


def description(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The document that describes these routes."""
    document = get_openapi(
        title="tenten for tills",
        version=release(),
        openapi_version="3.1.0",
        summary="Customers, orders, sales and business days of a store",
        description=_SUMMARY,
        routes=routes,
    )
    schema = ProblemOutput.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas.update(schema.pop("$defs", {}))
    schemas["ProblemOutput"] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
