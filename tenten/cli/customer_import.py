"""`tenten customer import`: customers from a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import ChannelName, Json, Operator, examples, pairs
from tenten.cli.output import print_json, print_line, progress_bar, report
from tenten.cli.wiring import opened_channel
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from tenten.producers import ImportResult


def add_import_command(app: typer.Typer) -> None:
    """Add the command to `tenten customer`."""

    @app.command(
        "import",
        epilog=examples(
            "tenten customer import houston customers.csv",
            "tenten customer import houston customers.csv --key CustomerKey --map 'E-Mail 2=' --map Vorname=first_name",
            "tenten customer import houston customers.csv --encoding cp1252",
        ),
    )
    def import_command(
        context: typer.Context,
        *,
        channel: ChannelName,
        file: Annotated[
            Path,
            typer.Argument(
                metavar="FILE",
                exists=True,
                dir_okay=False,
                readable=True,
                show_default=False,
                help="CSV with a header, or .jsonl.",
            ),
        ],
        mapping: Annotated[
            list[str] | None,
            typer.Option(
                "--map",
                metavar="COLUMN=field",
                show_default=False,
                help="The field of a column whose name is not recognized; nothing after = ignores it. Repeatable.",
            ),
        ] = None,
        key: Annotated[
            str | None, typer.Option(metavar="COLUMN", show_default=False, help="The column that identifies customers.")
        ] = None,
        encoding: Annotated[str, typer.Option(metavar="E", help="The encoding of the file.")] = "utf-8-sig",
        operator: Operator = None,
        json: Json = False,
    ) -> None:
        """Create or edit a customer for each line of a file.

        A line that was imported before changes nothing, so an interrupted import can be started again. Lines that break
        rules are refused with every reason; the others are imported. Exit code 0 if no line was refused, else 1.
        """
        from tenten.producers import import_customers

        fields_of_columns = pairs(mapping or [], "--map")
        with opened_channel(context, channel, operator) as opened, progress_bar("import", "lines") as bar:

            def progress(lines: int, share: float) -> None:
                bar(lines, lines / share if share > 0 else None)

            result = import_customers(
                opened, file, mapping=fields_of_columns, key=key, encoding=encoding, progress=progress
            )
        _show_import(result, json)


def _show_import(result: "ImportResult", json: bool) -> None:
    refused = [{"line": line.line, "reasons": reasons_as_json(line.reasons)} for line in result.rejected]
    if json:
        counts = {"read": result.read, "created": result.created, "edited": result.edited, "repeated": result.repeated}
        columns = {"columns": dict(result.columns), "key": result.key, "unused": list(result.unused)}
        print_json(counts | {"refused": refused} | columns)
    else:
        for line in result.rejected:
            for reason in line.reasons:
                report(f"line {line.line}: {reason.field}: {reason.text}")
        print_line(
            f"{result.read:,} read: {result.created:,} created, {result.edited:,} edited, "
            f"{result.repeated:,} repeated, {len(result.rejected):,} refused"
        )
        if result.unused:
            report(f"Not used: {', '.join(result.unused)}; name the field of a column with --map COLUMN=field")
    if refused:
        raise typer.Exit(FAILED)
