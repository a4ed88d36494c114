"""The documentation agrees with the code: commands, topics, tables and settings on docs/interface.md, generated
reference pages, examples in docstrings, paths and links.
"""

import doctest
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import typer
from pydantic import BaseModel
from sqlalchemy import MetaData

from docs.generate import PAGES as GENERATED
from docs.generate import REFERENCE
from tenten.cli.main import app
from tenten.runtime.settings import (
    AccountNumbers,
    Channel,
    DefaultCustomer,
    HeadquartersSettings,
    LegalEntity,
    Settings,
)
from tenten.schemas.tables import channel, headquarters
from tenten.schemas.topics import ALL, DAY_MS, Topic
from tests.acceptance.cli import ROOT

PACKAGES: Final = ("tenten",)
INTERFACE: Final = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
PAGES: Final = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})


def rows_under(first_heading: str) -> list[list[str]]:
    """The rows of the interface page's table whose first column has this heading, cell by cell."""
    lines = iter(INTERFACE.splitlines())
    for line in lines:
        if line.startswith(f"| {first_heading} |"):
            break
    else:
        pytest.fail(f"docs/interface.md has no table headed {first_heading}")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[1:]


def quoted(cell: str) -> list[str]:
    """The texts between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def commands_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it."""
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, subcommand in below.items():
        yield from commands_of(subcommand, (*path, name))


COMMANDS: Final = dict(commands_of(typer.main.get_command(app)))


def documented_commands() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command on the page, with its text there.

    After `tenten local start` a bare `stop` means `tenten local stop`: it replaces the last word.
    """
    for cells in rows_under("command"):
        first, *others = quoted(cells[0])
        assert first.startswith("tenten "), f"the row does not begin with a command: {cells[0]}"
        path = words_of(first)[1:]
        yield path, first
        for other in others:
            yield (*path[:-1], *words_of(other)), other
        for other in quoted(cells[1]):
            if (single := (*path[:-1], *words_of(other))) in COMMANDS:
                yield single, other


def words_of(written: str) -> tuple[str, ...]:
    """The words of a command up to its arguments and options."""
    return tuple(re.split(r" (?=[A-Z\[.-])", written)[0].split())


def test_interface_page_has_every_command_and_no_other() -> None:
    """Each command of the program is in docs/interface.md under its whole name, and each command there exists."""
    assert {path for path, _ in documented_commands()} == COMMANDS.keys()


def test_options_on_interface_page_exist() -> None:
    """Each option in docs/interface.md is an option of its command."""
    for path, written in documented_commands():
        parameters = COMMANDS[path].params
        options = {option for found in parameters for option in (*found.opts, *found.secondary_opts)}
        assert options >= set(re.findall(r"--[a-z-]+", written)), f"tenten {' '.join(path)}"


def test_every_command_has_help() -> None:
    """Each command, and each group of commands, has a help text."""
    groups: dict[tuple[str, ...], Any] = {(): typer.main.get_command(app)}
    for path in COMMANDS:
        for length in range(1, len(path)):
            groups[path[:length]] = groups[path[: length - 1]].commands[path[length - 1]]
    assert [path for path, command in (groups | COMMANDS).items() if not (command.help or "").strip()] == []


@pytest.mark.parametrize("topic", ALL, ids=lambda topic: topic.name)
def test_interface_page_describes_topic_as_declared(topic: Topic) -> None:
    """Value, number of partitions and retention agree with schemas/topics.py."""
    rows = {quoted(cells[0])[0]: cells[1:] for cells in rows_under("topic")}
    assert rows.keys() == {declared.name for declared in ALL}
    _, value, kept = rows[topic.name]
    assert topic.value in value
    assert ("one partition" in value) is (topic.partitions == 1)
    assert topic.partitions in (1, None)
    assert ("compacted" in kept) is (topic.configuration["cleanup.policy"] == "compact")
    times = [
        topic.configuration[name] for name in ("retention.ms", "delete.retention.ms") if name in topic.configuration
    ]
    assert re.findall(r"(\d+) days?", kept) == [str(int(time) // DAY_MS) for time in times]


@pytest.mark.parametrize(
    ("which", "metadata"),
    [("headquarters", headquarters.metadata), ("channel", channel.metadata)],
    ids=["headquarters", "channel"],
)
def test_interface_page_has_every_table_and_only_existing_columns(which: str, metadata: MetaData) -> None:
    """Each table and view is in docs/interface.md, and each column that the page names exists."""
    columns_of = {name: {column.name for column in table.columns} for name, table in metadata.tables.items()}
    if which == "headquarters":
        columns_of["sales_order_lines"] = set(re.findall(r"\w+", headquarters.sales_order_lines.statement))
    documented: set[str] = set()
    for cells in rows_under(which):
        tables = quoted(cells[0])
        documented |= set(tables)
        columns: set[str] = set().union(*(columns_of.get(name, set()) for name in tables))
        named = {name for name in quoted(cells[1]) if name.islower()}
        assert named <= columns, f"{tables}: {named - columns}"
    assert documented == columns_of.keys()


def test_settings_on_interface_page_are_valid() -> None:
    """The `tenten.toml` in docs/interface.md can be loaded."""
    document = re.search(r"```toml\n(.*?)```", INTERFACE, re.DOTALL)
    assert document is not None
    settings = Settings.model_validate(tomllib.loads(document.group(1)), context={"directory": ROOT})
    assert settings.channels.keys() == {"houston"}


@pytest.mark.parametrize(
    "table",
    [Settings, HeadquartersSettings, LegalEntity, AccountNumbers, Channel, DefaultCustomer],
    ids=lambda table: table.__name__,
)
def test_every_setting_is_on_interface_page(table: type[BaseModel]) -> None:
    """Each setting of the code is in docs/interface.md."""
    words = set(re.findall(r"\w+", INTERFACE))
    assert table.model_fields.keys() - words == set()


def modules_with_examples() -> list[str]:
    """Every module with an example in a docstring."""
    names = []
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            path = ROOT / (module.name.replace(".", "/") + ("/__init__.py" if module.ispkg else ".py"))
            if path.exists() and ">>> " in path.read_text(encoding="utf-8"):
                names.append(module.name)
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_run(name: str) -> None:
    """Each example after >>> is run and gives the result below it."""
    module: ModuleType = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_are_valid(page: Path) -> None:
    """Each relative link names a file or directory of the repository, and a heading that exists."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (heading and heading not in headings_of(target)):
            broken.append(link)
    assert broken == []


def headings_of(page: Path) -> set[str]:
    """The headings of a page, as they are linked to."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/contributing.md"])
def test_named_files_exist(page: str) -> None:
    """Each file that the pages for developers name exists."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|md|avsc|toml))`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(named) > 10


@pytest.mark.parametrize("name", GENERATED)
def test_reference_page_is_up_to_date(name: str) -> None:
    """The page in the repository is the one that docs/generate.py writes: run it after a change of a catalogue."""
    assert (REFERENCE / name).read_text(encoding="utf-8") == GENERATED[name]()


def test_reference_has_no_other_pages() -> None:
    """Each page in docs/reference is generated."""
    assert {page.name for page in REFERENCE.iterdir()} == GENERATED.keys()


def test_index_links_to_every_page() -> None:
    """docs/README.md links to each page below docs, and to the folder of decisions."""
    index = ROOT / "docs" / "README.md"
    linked = {
        (index.parent / path).resolve() for path in re.findall(r"\]\(([^)#\s]+)", index.read_text(encoding="utf-8"))
    }
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index}
    assert {page for page in pages if page not in linked and page.parent not in linked} == set()


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda page: page.stem)
def test_decision_has_the_form_of_all(page: Path) -> None:
    """A decision is headed by its number and says what was decided, why, and what would reopen it."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.name[:4]}: ")
    assert all(f"\n**{part}" in text for part in ("Decision.**", "Why.**", "Reopen when**"))
