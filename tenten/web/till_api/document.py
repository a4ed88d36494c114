"""The answer with a document."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class Document(JSONResponse):
    """A JSON document, which nobody may store on its way: it may be about a person."""

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, {"Cache-Control": "no-store", **(headers or {})})
