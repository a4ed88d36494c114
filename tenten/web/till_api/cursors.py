"""Positions in lists, as texts that clients send back unread."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from tenten.schemas.messages import Reason
from tenten.web.serving.problems import Problem


def cursor(position: str) -> str:
    """The cursor of a position."""
    return urlsafe_b64encode(position.encode()).decode().rstrip("=")


def position_of(text: str | None) -> str | None:
    """The position of a cursor; None without one. Raises: `Problem` 422."""
    if text is None:
        return None
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError:
        raise invalid_cursor() from None


def invalid_cursor() -> Problem:
    """The refusal of a cursor that no list has given."""
    reason = Reason(field="cursor", code="malformed", text="Not a cursor of this list: begin without one.")
    return Problem(422, "The cursor is not valid.", errors=[reason])
