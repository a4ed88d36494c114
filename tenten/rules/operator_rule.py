"""The rule for the operator of an event, the same in stores and at headquarters."""

from collections.abc import Iterator
from typing import Final

from tenten.rules.field_rules import Text
from tenten.rules.field_violations import violations
from tenten.rules.limits import OPERATOR_CHARACTERS_MAX
from tenten.schemas.messages import Reason

_RULE: Final = Text(OPERATOR_CHARACTERS_MAX)


def operator_violations(operator: str | None) -> Iterator[Reason]:
    """A reason for each violation; no operator is valid."""
    return violations(_RULE, "operator", operator)


def storable_operator(operator: str | None) -> str | None:
    """The operator, or None for an invalid one: its record is rejected, and stored without it."""
    return None if any(operator_violations(operator)) else operator
