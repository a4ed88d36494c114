"""The catalogue of unreadable records is complete: the sources use every code in it and no other."""

import ast
from collections.abc import Iterator
from typing import get_args

from tenten.rules.unreadable_reasons import UNREADABLE_REASONS, UnreadableReason
from tests.unit.test_reason_codes import sources


def created_codes(tree: ast.AST) -> Iterator[str]:
    """The code wherever a module creates `Unreadable(code, ...)` or `UnreadableRow(reason=code, ...)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Unreadable"), args=[ast.Constant(value=str(code)), _]):
                yield code
            case ast.Call(func=ast.Name(id="UnreadableRow")):
                for keyword in node.keywords:
                    match keyword:
                        case ast.keyword(arg="reason", value=ast.Constant(value=str(code))):
                            yield code


def test_catalogue_has_exactly_the_codes_that_are_created() -> None:
    """A new code needs its entry; a code that no module creates is removed."""
    created = {code for path in sources() for code in created_codes(ast.parse(path.read_text(encoding="utf-8")))}
    assert set(UNREADABLE_REASONS) == created


def test_type_of_codes_has_exactly_those_of_the_catalogue() -> None:
    """Mypy rejects a code that the catalogue lacks."""
    assert list(get_args(UnreadableReason)) == list(UNREADABLE_REASONS)


def test_catalogue_is_fit_for_the_reference() -> None:
    """Codes are sorted identifiers; meaning and remedy are sentences."""
    assert list(UNREADABLE_REASONS) == sorted(UNREADABLE_REASONS)
    for name, reason in UNREADABLE_REASONS.items():
        assert name == reason.code
        assert name.isidentifier()
        assert reason.meaning.endswith(".")
        assert reason.remedy.endswith(".")
