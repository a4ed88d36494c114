"""Shared by all commands: declaring a noun, and options with the same meaning everywhere."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from tenten.runtime.environment import KAFKA_VARIABLE, kafka_of_environment

HELP_COLUMNS: Final = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class EverywhereOptions:
    """`--config` and `--kafka`, which every command takes."""

    config: Path | None = None
    kafka: dict[str, str] = field(default_factory=dict)

    def as_arguments(self) -> tuple[str, ...]:
        """The arguments for another process of this program: without `--kafka`, which may hold a password."""
        return () if self.config is None else ("--config", str(self.config.absolute()))

    def as_environment(self) -> dict[str, str]:
        """The environment that gives another process of this program the options of `--kafka`, beside the properties
        that this process has from its own environment. Raises: `SettingsError`.
        """
        return {KAFKA_VARIABLE: json.dumps({**kafka_of_environment(), **self.kafka})} if self.kafka else {}


def everywhere(context: typer.Context) -> EverywhereOptions:
    """The options that were given before or after the command."""
    options = context.find_root().obj
    return options if isinstance(options, EverywhereOptions) else EverywhereOptions()


def noun(text: str, *example: str, completion: bool = False) -> typer.Typer:
    """A noun without verbs. Help is plain text, so that examples are not wrapped."""
    return typer.Typer(
        help=text,
        epilog=examples(*example) if example else None,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": HELP_COLUMNS},
    )


def examples(*lines: str) -> str:
    """The end of a command's help: lines to copy."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` options by name; the last one of a name counts. Raises: `typer.BadParameter`."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        values[name.strip()] = value
    return values


Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout; everything else goes to stderr.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL", help="A channel of tenten.toml.", show_default=False)]
CustomerId = Annotated[str, typer.Argument(metavar="ID", help="The customer's GUID.", show_default=False)]
Operator = Annotated[
    str | None,
    typer.Option(
        "--operator",
        metavar="NAME",
        envvar="TENTEN_OPERATOR",
        show_default=False,
        help="The person who makes the change, recorded with it. At most 64 characters.",
    ),
]
OfChannel = Annotated[
    str | None, typer.Option("--channel", metavar="CHANNEL", show_default=False, help="Only those of this channel.")
]
Newest = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="Show the N newest.")]
ChannelArgument = Annotated[str, typer.Argument(metavar="NAME", help="A channel of tenten.toml.", show_default=False)]
RegisteredChannel = Annotated[
    str, typer.Argument(metavar="NAME", help="A channel of headquarters' settings.", show_default=False)
]
LogFormatOption = Annotated[
    Literal["console", "logfmt", "json"] | None,
    typer.Option(
        "--log-format",
        metavar="console|logfmt|json",
        show_default=False,
        help="Default: TENTEN_LOG_FORMAT, else console on a terminal and logfmt otherwise.",
    ),
]
Started = Annotated[
    Path | None,
    typer.Option("--started", metavar="PATH", hidden=True, help="Create this file when the process has started."),
]
EndsWith = Annotated[
    int | None,
    typer.Option("--ends-with", metavar="PID", hidden=True, help="End when this parent process has ended."),
]


def check_status(status: str | None, statuses: Collection[str]) -> None:
    """Raises: `typer.BadParameter` for a `--status` that is not one of these."""
    if status is not None and status not in statuses:
        raise typer.BadParameter(f"{status!r} is not one of {', '.join(statuses)}", param_hint="--status")


def confirm(question: str, yes: bool) -> None:
    """Return only with `--yes`, or when a person at a terminal agrees. Raises: `typer.Exit`, `typer.BadParameter`."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Confirm with --yes", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
