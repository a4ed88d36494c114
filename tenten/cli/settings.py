"""`tenten settings`: legal entities and channels, as headquarters has them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, Newest, Operator, examples, noun
from tenten.cli.output import print_document, print_json, print_table, report
from tenten.cli.wiring import at_headquarters, headquarters_engine

if TYPE_CHECKING:
    from tenten.registry.values import Differences, Registry

app = noun("Headquarters' settings: legal entities and channels.", "tenten settings apply tenten.toml --dry-run")

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        dir_okay=False,
        show_default=False,
        help="[legal_entities.NAME] and [channels.NAME] as in tenten.toml; databases and the other tables are ignored.",
    ),
]


@app.command(
    epilog=examples(
        "tenten settings apply tenten.toml --dry-run",
        "tenten settings apply stores.toml --operator mary",
        "tenten settings apply stores.toml --remove channels.dallas",
    )
)
def apply(
    context: typer.Context,
    *,
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="channels.NAME",
            show_default=False,
            help="Remove this channel, or legal_entities.NAME, which the file does not have. Repeatable.",
        ),
    ] = None,
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Make headquarters' legal entities and channels those of a file, all of them or none.

    The workers of headquarters use them within a second, and judge the events that were held for them. Idempotent.

    What the file lacks is removed only if --remove names it. Customers, orders and account numbers stay; later events
    of a removed channel are held. A legal entity that has customers is never removed, a channel keeps its legal entity,
    and the format of numbers only becomes longer. The next number of an existing sequence is never changed.
    """
    from tenten.registry.apply import apply_registry

    names = _entries(remove or [])
    wanted = _wanted(file)
    with headquarters_engine(context) as (_, engine):
        changes = apply_registry(
            engine, wanted, source="settings apply", operator=operator, to_remove=names, dry_run=dry_run
        )
    _print_changes(changes, json=json)
    if not json:
        applied = "would be applied" if dry_run else "applied"
        report("Headquarters has these settings already" if changes.none else f"{_counts(changes)} {applied}")


@app.command(epilog=examples("tenten settings diff tenten.toml", "tenten settings diff tenten.toml --json"))
def diff(context: typer.Context, file: File, json: Json = False) -> None:
    """Show how a file differs from headquarters' settings. Exit code 1 when it does.

    `before` is headquarters' value, `after` that of the file. The first numbers of sequences are not compared.
    """
    from tenten.registry.apply import compare_registry

    wanted = _wanted(file)
    with headquarters_engine(context) as (_, engine):
        changes = compare_registry(engine, wanted)
    _print_changes(changes, json=json)
    if not json:
        report("They agree" if changes.none else f"{_counts(changes)}: `tenten settings apply {file}` applies the file")
    if not changes.none:
        raise typer.Exit(FAILED)


@app.command(epilog=examples("tenten settings show > stores.toml", "tenten settings show --json"))
def show(context: typer.Context, json: Json = False) -> None:
    """Show headquarters' legal entities and channels, as a file for `tenten settings apply`."""
    from tenten.registry.tables import read_registry
    from tenten.registry.toml import registry_toml
    from tenten.registry.values import table_of

    with at_headquarters(context) as headquarters:
        registry = read_registry(headquarters)
    if json:
        sections = registry.by_section()
        print_json({section: {name: table_of(entries[name]) for name in entries} for section, entries in sections})
    elif registry.is_empty:
        report("Headquarters has no legal entity and no channel: `tenten settings apply FILE` adds some")
    else:
        print_document(registry_toml(registry))


@app.command(epilog=examples("tenten settings history", "tenten settings history --limit 1 --json"))
def history(context: typer.Context, limit: Newest = 20, json: Json = False) -> None:
    """Show the changes of headquarters' settings, the newest first: when, by whom, and what."""
    from tenten.registry.history import list_history

    with at_headquarters(context) as headquarters:
        found = list_history(headquarters, limit)
    if json:
        print_json(found)
        return
    rows = [
        (change.change_id, change.applied_at, change.operator, change.source, kind, item["setting"])
        for change in found
        for kind in ("added", "changed", "removed")
        for item in getattr(change, kind)
    ]
    print_table(("change_id", "applied_at", "operator", "source", "change", "setting"), rows)


def _wanted(file: Path) -> "Registry":
    """The registry of a file; names on stderr what was ignored in it. Raises: `SettingsError`."""
    from tenten.registry.values import registry_of
    from tenten.runtime.settings.registry_file import read_registry_file

    found = read_registry_file(file)
    if found.ignored:
        report(f"Ignored, because each machine has its own: {', '.join(found.ignored)}")
    return registry_of(found.legal_entities, found.channels)


def _entries(names: list[str]) -> list[str]:
    """Raises: `typer.BadParameter` for a name that is not that of a channel or a legal entity."""
    for name in names:
        section, _, entry = name.partition(".")
        if section not in ("channels", "legal_entities") or not entry or "." in entry:
            raise typer.BadParameter(f"{name!r} is not channels.NAME or legal_entities.NAME", param_hint="--remove")
    return names


def _print_changes(changes: "Differences", *, json: bool) -> None:
    from tenten.registry.toml import toml_value

    if json:
        print_json(changes.settings())
    elif not changes.none:
        rows = [
            (kind, change["setting"], *("" if change[side] is None else toml_value(change[side]) for side in _SIDES))
            for kind, of_kind in changes.as_json().items()
            for change in of_kind
        ]
        print_table(("change", "setting", *_SIDES), rows)


_SIDES = ("before", "after")


def _counts(changes: "Differences") -> str:
    return ", ".join(f"{len(names):,} {kind}" for kind, names in changes.settings().items() if names)
