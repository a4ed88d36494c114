"""The registry as a file that can be edited and applied again."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tenten.registry.values import Registry, table_of


def registry_toml(registry: Registry) -> str:
    """The registry in the form of tenten.toml."""
    tables = (
        _table(f"{section}.{name}", table_of(entry))
        for section, entries in registry.by_section()
        for name, entry in sorted(entries.items())
    )
    return "\n".join("\n".join(lines) + "\n" for lines in tables)


def _table(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table, then those of its tables."""
    yield f"[{path}]"
    for name, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{name} = {toml_value(value)}"
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _table(f"{path}.{name}", value)


def toml_value(value: Any) -> str:
    """A value as TOML, which writes texts, numbers and lists as JSON does, but no DEL character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
