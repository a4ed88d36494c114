"""Ids that callers give: GUIDs in any notation."""

from uuid import UUID

from tenten.schemas.messages import Reason


def parse_id(text: str) -> UUID | None:
    """The GUID; None for any other text."""
    try:
        return UUID(text)
    except ValueError:
        return None


def normal_ids(text: str) -> list[str]:
    """The GUID in lower case with hyphens; empty for any other text."""
    guid = parse_id(text)
    return [] if guid is None else [str(guid)]


def invalid_id(field: str) -> Reason:
    """The reason for rejecting an id that is not a GUID."""
    return Reason(
        field=field, code="invalid_id", text="Must be a GUID, for example 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f."
    )
