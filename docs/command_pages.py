"""Pages of what a user writes: commands and settings."""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from typing import Any, Final, get_args

import typer
from pydantic import BaseModel

from docs.pages import page, table
from tenten.cli.main import app
from tenten.runtime.settings import Settings

_EVERYWHERE: Final = frozenset({"--help"})


def command_page() -> str:
    """Every command with its arguments and options."""
    parts = [part for words, command in _commands(typer.main.get_command(app), ()) for part in _command(words, command)]
    text = (
        "Also `tenten COMMAND --help`. `--config FILE` and `--kafka NAME=VALUE` may be given with every command. The "
        "[public interface](../interface.md#commands) has the JSON of each."
    )
    return page("Commands", "tenten/cli/", text, *parts)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield words, command
    for name in sorted(below):
        yield from _commands(below[name], (*words, name))


def _command(words: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden and not _EVERYWHERE.issuperset(parameter.opts)
    ]
    usage = " ".join(("tenten", *words, *(_argument(argument) for argument in arguments)))
    yield f"## tenten {' '.join(words)}"
    yield f"    {usage}{' [OPTIONS]' if options else ''}"
    yield _text(command.help)
    if options:
        rows = [(", ".join(f"`{name}`" for name in _names(option)), _text(option.help)) for option in options]
        yield table(("option", "meaning"), rows)


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name.strip('[]')}]"


def _names(option: Any) -> list[str]:
    value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    return [f"{name}{value}" for name in (*option.opts, *option.secondary_opts)]


def _text(help_text: str | None) -> str:
    """A help text as paragraphs; its line breaks are those of a terminal."""
    paragraphs = (help_text or "").replace("\b", "").replace("<", "&lt;").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()


def settings_page() -> str:
    """Every setting of tenten.toml."""
    parts = [part for declared in dict.fromkeys(_tables(Settings)) for part in _settings_table(declared)]
    text = (
        "The tables of `tenten.toml`, as the program declares them; a name with a capital stands for a table below. An "
        "[example of each](../interface.md#settings) is on the page of the public interface, and `tenten config show` "
        "prints what is in force."
    )
    return page("Settings", "tenten/runtime/settings/", text, *parts)


def _tables(declared: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A table and those below it."""
    yield declared
    for field in declared.model_fields.values():
        for found in _classes(field.annotation):
            if issubclass(found, BaseModel):
                yield from _tables(found)


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def _settings_table(declared: type[BaseModel]) -> Iterator[str]:
    yield f"## {declared.__name__}"
    yield " ".join((declared.__doc__ or "").split())
    rows = [row for ancestor in reversed(declared.__mro__) for row in _own_settings(ancestor)]
    yield table(("setting", "type", "default", "meaning"), rows)


def _own_settings(declared: type) -> Iterator[tuple[str, str, str, str]]:
    """The settings that a class itself declares."""
    if not issubclass(declared, BaseModel) or declared is BaseModel:
        return
    (node,) = ast.parse(dedent(inspect.getsource(declared))).body
    assert isinstance(node, ast.ClassDef)
    for field, following in pairwise([*node.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_":
            default = "required" if field.value is None else f"`{_default(field.value)}`"
            yield f"`{field.target.id}`", f"`{ast.unparse(field.annotation)}`", default, _docstring(following)


def _default(value: ast.expr) -> str:
    """The default without the limits beside it."""
    match value:
        case ast.Call(func=ast.Name(id="Field"), keywords=keywords):
            return next((ast.unparse(found.value) for found in keywords if found.arg == "default"), "...")
    return ast.unparse(value)


def _docstring(node: ast.AST) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""
