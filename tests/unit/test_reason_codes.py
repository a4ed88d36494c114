"""The catalogue of reason codes is complete: the sources use every code in it and no other."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tenten.rules.reason_codes import REASON_CODES

ROOT = Path(__file__).parents[2]
FOLDERS = ("producers", "consumers", "schemas", "tenten")

COMPUTED_CODES = {
    # The condition of a listed transaction, which SQL computes.
    "consumers/headquarters/transactions/statements.py": {"missing", "misplaced", "waiting", "blocked", "rejected"},
    # Copies a reason.
    "schemas/messages/reason.py": set[str](),
    # Reasons that only a page shows: no command, record or table has them.
    "tenten/web/store_screen/reasons.py": set[str](),
    # Takes the code of a rule in `field_rules.py`.
    "tenten/rules/field_violations.py": set[str](),
}
"""The codes of reasons that the sources do not create with a literal, by file."""


def sources() -> list[Path]:
    """The product's modules; the links inside `tenten` are not followed."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if not any(parent.is_symlink() for parent in path.parents)]


def created_codes(tree: ast.AST) -> Iterator[ast.expr]:
    """The expression of the code wherever a module creates a reason, as `Reason(...)` or an object for JSON, or a rule
    that has its own code, `OneOf(...)`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Reason", "OneOf"):
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
        if isinstance(node, ast.Dict):
            members = {ast.unparse(key): value for key, value in zip(node.keys, node.values, strict=True) if key}
            if {"'field'", "'code'", "'text'"} <= members.keys():
                yield members["'code'"]


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The module's constants by name."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and node.value is not None
        for target in [node.target]
        if isinstance(target, ast.Name)
    }


@cache
def codes_of(path: Path) -> frozenset[str]:
    """The codes of every reason that this module can create."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    codes = set[str]()
    for expression in created_codes(tree):
        value = constants(tree).get(expression.id, expression) if isinstance(expression, ast.Name) else expression
        if isinstance(value, ast.Constant):
            codes.add(str(value.value))
        else:
            name = path.relative_to(ROOT).as_posix()
            assert name in COMPUTED_CODES, f"{name}:{expression.lineno} creates a reason with a computed code"
            codes |= COMPUTED_CODES[name]
    return frozenset(codes)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_created_code_is_in_the_catalogue(path: Path) -> None:
    """No module creates a reason whose code the catalogue lacks."""
    assert codes_of(path) - REASON_CODES.keys() == set()


def test_every_code_in_the_catalogue_is_created() -> None:
    """A code that no module creates is removed from the catalogue."""
    assert REASON_CODES.keys() - set().union(*map(codes_of, sources())) == set()


def test_catalogue_is_fit_for_the_reference() -> None:
    """Codes are sorted identifiers; meaning and remedy are sentences."""
    assert list(REASON_CODES) == sorted(REASON_CODES)
    for name, reason_code in REASON_CODES.items():
        assert name == reason_code.code
        assert name.isidentifier()
        assert reason_code.meaning.endswith(".")
        assert reason_code.remedy.endswith(".")
