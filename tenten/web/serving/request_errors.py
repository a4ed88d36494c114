"""What pydantic finds wrong with a request, as reasons: fields as the caller named them, sentences for a clerk."""

from collections.abc import Mapping
from typing import Any, Final

from tenten.schemas.messages import Reason

_SENTENCES: Final[Mapping[str, str]] = {
    "string_type": "Must be a text.",
    "bool_type": "Must be true or false.",
    "int_type": "Must be a whole number.",
    "int_parsing": "Must be a whole number.",
    "list_type": "Must be a list.",
    "dict_type": "Must be an object.",
    "model_type": "Must be an object.",
    "model_attributes_type": "Must be an object.",
    "uuid_type": "Must be a GUID.",
    "uuid_parsing": "Must be a GUID.",
    "literal_error": "Must be {expected}.",
    "enum": "Must be {expected}.",
    "greater_than_equal": "Must be at least {ge}.",
    "less_than_equal": "Must be at most {le}.",
    "string_too_long": "At most {max_length} characters are allowed.",
    "datetime_type": "Must be a time such as 2026-03-02T17:04:05Z.",
    "datetime_parsing": "Must be a time such as 2026-03-02T17:04:05Z.",
    "datetime_from_date_parsing": "Must be a time such as 2026-03-02T17:04:05Z.",
}
"""By type of the error, with the values of its context."""

_OTHER: Final = "Not as the API describes it."


def reason_of(error: Mapping[str, Any]) -> Reason:
    """An error of pydantic as a reason."""
    place, *path = error["loc"]
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    field, context = name or str(place), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return Reason(field=field, code="unknown_field", text="There is no such field.")
        case "missing":
            return Reason(field=field, code="required", text="This field is required.")
        case "too_long":
            return Reason(field=field, code="too_many", text=f"At most {context['max_length']:,} are allowed.")
        case "value_error":
            # Of the validators of the API, whose texts are sentences.
            return Reason(field=field, code="malformed", text=str(context["error"]))
        case kind:
            return Reason(field=field, code="malformed", text=_SENTENCES.get(kind, _OTHER).format(**context))
