"""The registry as a file that can be edited and applied again."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tenten.registry.values import Registry, table_of


def registry_toml(registry: Registry) -> str:
    """The registry in the form of tenten.toml."""
    tables = (
        table_lines(f"{section}.{name}", table_of(entry))
        for section, entries in registry.by_section()
        for name, entry in sorted(entries.items())
    )
    return "\n".join("\n".join(lines) + "\n" for lines in tables)


def table_lines(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table, then those of its tables; without a path those of a whole document."""
    if path and not (table and all(isinstance(value, Mapping) for value in table.values())):
        yield f"[{path}]"
    for name, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{toml_key(name)} = {toml_value(value)}"
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from table_lines(f"{path}.{name}" if path else name, value)


def toml_key(name: str) -> str:
    """A key as TOML, quoted where it must be."""
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else toml_value(name)


def toml_value(value: Any) -> str:
    """A value as TOML, which writes texts, numbers and lists as JSON does, but no DEL character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
