"""Reasons: the rules that a record breaks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One broken rule: the field as a path, a code for programs (see `rules/reason_codes.py`), a text for people."""

    field: str
    code: str
    text: str


def reasons_as_json(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    """Reasons as in tables and in the output of commands: `[{field, code, text}]`."""
    return [{"field": reason.field, "code": reason.code, "text": reason.text} for reason in reasons]


def reasons_from_json(stored: Iterable[Mapping[str, str]] | None) -> tuple[Reason, ...]:
    """The reasons that `reasons_as_json` has stored; empty for null."""
    return tuple(Reason(**reason) for reason in stored or ())
