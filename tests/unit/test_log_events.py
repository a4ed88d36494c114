"""The catalogue of log events and the code agree."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tenten.runtime.log_events import LOG_EVENTS

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


class Logged(NamedTuple):
    """A call that logs an event."""

    place: str
    level: str
    event: ast.expr | None
    fields: frozenset[str | None]


@cache
def _logged() -> tuple[Logged, ...]:
    """The calls, for which all sources are parsed once."""
    return tuple(_calls())


def _calls() -> Iterator[Logged]:
    """Every `log.info("event", field=...)` of the product; a field None is `**fields`."""
    for directory in ("tenten", "producers", "consumers"):
        for file in (ROOT / directory).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)) if level in LEVELS:
                        fields = {keyword.arg for keyword in node.keywords}
                        if level == "exception" or "exc_info" in fields:
                            # What an exception is logged as.
                            fields = fields - {"exc_info"} | {"error", "code", "at"}
                        yield Logged(
                            f"{file.relative_to(ROOT)}:{node.lineno}",
                            "error" if level == "exception" else level,
                            node.args[0] if len(node.args) == 1 else None,
                            frozenset(fields),
                        )


def test_events_are_literal_names_with_named_fields() -> None:
    """Otherwise the catalogue could not be compared with the code."""
    for logged in _logged():
        assert isinstance(logged.event, ast.Constant), logged.place
        assert isinstance(logged.event.value, str), logged.place
        assert None not in logged.fields, logged.place


def test_every_module_logs_through_log() -> None:
    """A logger of another name would escape the comparison."""
    for directory in ("tenten", "producers", "consumers"):
        for file in (ROOT / directory).rglob("*.py"):
            for line in file.read_text(encoding="utf-8").splitlines():
                if "get_logger(" in line:
                    assert line == "log = get_logger(__name__)", file


def test_every_logged_event_is_in_the_catalogue_with_its_level_and_fields() -> None:
    """A new event, level or field needs its entry."""
    for logged in _logged():
        name = str(getattr(logged.event, "value", None))
        assert name in LOG_EVENTS, f"{name} at {logged.place}"
        declared = LOG_EVENTS[name]
        assert (logged.level, set(declared.fields)) == (declared.level, set(logged.fields)), logged.place


def test_every_event_of_the_catalogue_is_logged() -> None:
    """An event that the code no longer logs leaves the catalogue."""
    places: dict[object, list[str]] = defaultdict(list)
    for logged in _logged():
        places[getattr(logged.event, "value", None)].append(logged.place)
    assert LOG_EVENTS.keys() == places.keys()


def test_catalogue_explains_every_event_in_sentences() -> None:
    """Names are snake case; meanings end with a full stop; no field occurs twice."""
    for name, event in LOG_EVENTS.items():
        assert name == name.lower()
        assert event.meaning.endswith("."), name
        assert len(set(event.fields)) == len(event.fields), name
