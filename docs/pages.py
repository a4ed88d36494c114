"""Parts of generated pages."""

from collections.abc import Iterable, Sequence


def page(title: str, source: str, *parts: str) -> str:
    """A page generated from this source."""
    note = f"<!-- Generated from {source} by docs/generate.py; do not edit. -->"
    return "\n\n".join((f"# {title}", note, *parts)) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell is one line."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def codes(names: Iterable[str]) -> str:
    """The names as code; - without any."""
    return ", ".join(f"`{name}`" for name in names) or "-"
