"""The options of `tenten customer create` that derive from the table of the customer's fields."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from tenten.schemas.customer_fields import scalar_fields


def with_field_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with an option for each field that has one instead of its parameter `**texts`."""
    signature = inspect.signature(command)
    others = [kind for kind in signature.parameters.values() if kind.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None, typer.Option(metavar="TEXT", show_default=False, help=field.option or None)
            ],
        )
        for field in scalar_fields()
        if field.option is not None
    ]
    positional = [each for each in others if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    keyword_only = [each for each in others if each.kind is inspect.Parameter.KEYWORD_ONLY]
    # The first one is the channel; then the customer's own fields, as `--help` lists them.
    parameters = [*positional, *keyword_only[:1], *options, *keyword_only[1:]]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by inspect
    command.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return command
