"""Each worker's declaration against its sources, its command, docker-compose.yml, its tests and the documentation."""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tenten import workers
from tenten.cli.main import app
from tenten.schemas import topics
from tenten.workers import ALL, AT_HEADQUARTERS, CHANNEL_FAILPOINTS, JOIN_FAILPOINTS, STORE_FAILPOINTS, Worker

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
each_worker = pytest.mark.parametrize("worker", ALL, ids=lambda worker: worker.name)


@cache
def sources(package: str) -> list[ast.Module]:
    """The parsed modules of a package."""
    directory = ROOT / Path(*package.split("."))
    return [ast.parse(path.read_text()) for path in sorted(directory.rglob("*.py"))]


def failpoints_in(modules: list[ast.Module], session: str | None) -> Iterator[str]:
    """The names of the failpoints that these modules pass; `session` fills in the name of a transaction session."""
    for module in modules:
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                match node.args:
                    case [ast.Constant(value=str(name))]:
                        yield name
                    case [ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value=str(rest))]) as template]:
                        assert session is not None, ast.unparse(template)
                        yield session + rest
                    case _:
                        pytest.fail(f"not the name of a failpoint: {ast.unparse(node)}")


def names_in(modules: list[ast.Module]) -> set[str]:
    """The names that these modules use."""
    return {node.id for module in modules for node in ast.walk(module) if isinstance(node, ast.Name)}


def failpoints_of(worker: Worker) -> list[str]:
    """The failpoints that a worker's own sources pass, and those of its transaction session if it has one."""
    modules = sources(worker.package)
    passed = [*failpoints_in(modules, None)]
    if "TransactionSession" in names_in(modules):
        passed += failpoints_in(sources("tenten.kafka"), worker.name)
    return passed


def test_every_worker_runs_at_headquarters_or_in_channels() -> None:
    """A worker outside both tuples would have no service and no line in status and in the reference."""
    declared = {value.name for value in vars(workers).values() if isinstance(value, Worker)}
    assert declared == {worker.name for worker in ALL}


def test_every_package_with_a_run_module_is_a_worker() -> None:
    """A worker without a declaration would have no command."""
    found = {path.parent for folder in ("consumers", "producers") for path in (ROOT / folder).rglob("run.py")}
    packages = {".".join(("tenten", *path.relative_to(ROOT).parts)) for path in found}
    assert packages == {worker.package for worker in ALL}


def test_workers_of_headquarters_never_import_each_other() -> None:
    """import-linter knows all of them."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    assert {worker.package for worker in AT_HEADQUARTERS} in [
        {*contract["modules"]} for contract in contracts if contract["type"] == "independence"
    ]


@each_worker
def test_worker_is_killed_at_each_of_its_failpoints(worker: Worker) -> None:
    """Tests on real servers name each failpoint, or all of them as the worker's `failpoints`."""
    texts = [
        path.read_text() for folder in ("faults", "integration") for path in (ROOT / "tests" / folder).glob("*.py")
    ]
    (constant,) = (name for name, value in vars(workers).items() if value is worker)
    if not any(f"{constant}.failpoints" in text for text in texts):
        assert [name for name in worker.failpoints if not any(f'"{name}"' in text for text in texts)] == []


@each_worker
def test_failpoints_are_those_that_the_sources_pass(worker: Worker) -> None:
    """A failpoint that is declared once is passed, perhaps on several paths, and one that is passed is declared."""
    assert sorted(worker.failpoints) == sorted(set(failpoints_of(worker)))


def test_failpoints_of_the_till_are_those_that_its_sources_pass() -> None:
    """The same for the points that no worker passes."""
    assert sorted(STORE_FAILPOINTS) == sorted(set(failpoints_in(sources("tenten.producers.till"), None)))


def test_failpoints_of_joining_are_those_that_its_sources_pass() -> None:
    """Those of its own package, and of the resync that loads the customers."""
    passed = set(failpoints_in(sources("tenten.consumers.channel.joining"), None))
    resync = set(failpoints_in(sources("tenten.consumers.channel.distribution"), None))
    assert passed <= set(JOIN_FAILPOINTS) <= passed | resync


def test_every_failpoint_of_the_product_is_declared() -> None:
    """No undeclared failpoint is in any package."""
    declared = {*STORE_FAILPOINTS, *JOIN_FAILPOINTS, *(name for worker in ALL for name in worker.failpoints)}
    at_the_top = [sources(f"tenten.{name}") for name in ("consumers", "producers")]
    assert {name for modules in at_the_top for name in failpoints_in(modules, None)} <= declared


@each_worker
def test_topics_are_those_that_the_sources_name(worker: Worker) -> None:
    """The sources of a worker name each topic that it reads or writes."""
    by_name = {name: topic for name, topic in vars(topics).items() if isinstance(topic, topics.Topic)}
    named = {topic.name for name, topic in by_name.items() if name in names_in(sources(worker.package))}
    declared = {topic.name for topic in (*worker.inputs, *worker.writes)} - {topics.SCHEMAS.name}
    assert named == declared


@each_worker
def test_command_exists_and_lists_the_failpoints(worker: Worker) -> None:
    """`tenten COMMAND --help` tells what the worker does, and the names for TENTEN_FAILPOINT."""
    command: Any = typer.main.get_command(app)
    for word in worker.command:
        command = command.commands[word]
    shown = command.get_help(typer.Context(command, info_name=" ".join(worker.command)))
    assert worker.sentence in " ".join(shown.split())
    assert all(name in shown.split() for name in worker.failpoints)


@each_worker
def test_code_is_loaded_from_the_declared_package(worker: Worker) -> None:
    """`load` returns the function of the worker's own package."""
    run = inspect.getclosurevars(worker.load()).nonlocals["run"]
    assert run.__module__ == f"{worker.package}.run"


@each_worker
def test_compose_runs_every_worker(worker: Worker) -> None:
    """A worker of headquarters has a service of its own; a channel's worker runs in the channel's."""
    words = [service.get("command", [])[:3] for service in COMPOSE["services"].values()]
    if worker in AT_HEADQUARTERS:
        assert COMPOSE["services"][worker.name]["command"][:2] == [*worker.command]
    else:
        assert ["channel", "run", "houston"] in words


@pytest.mark.parametrize("worker", AT_HEADQUARTERS, ids=lambda worker: worker.name)
def test_group_is_the_one_that_the_worker_joins(worker: Worker) -> None:
    """Lag is asked for the group under which the worker commits."""
    assigned = {
        target.id: node.value.value
        for module in sources(worker.package)
        for node in ast.walk(module)
        if isinstance(node, ast.AnnAssign) and isinstance(target := node.target, ast.Name)
        if isinstance(node.value, ast.Constant)
    }
    assert assigned.get("GROUP") == worker.group


@each_worker
def test_group_and_topics_are_on_the_interface_page(worker: Worker) -> None:
    """Operators find the group and the topics of every worker in docs/interface.md."""
    page = (ROOT / "docs" / "interface.md").read_text()
    names = {topic.name for topic in (*worker.inputs, *worker.writes)}
    names |= set() if worker.group is None else {worker.group_of("NAME") or ""}
    assert {name for name in names if f"`{name}`" not in page} == set()


def words_in_first_columns(page: str) -> set[str]:
    """The words in the first column of the tables of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return {word for line in lines if line.startswith("| ") for word in re.split(r"[ ,`]+", line.split("|")[1])}


@each_worker
def test_crash_table_has_the_worker(worker: Worker) -> None:
    """ARCHITECTURE.md tells the consequences of a crash of each worker."""
    assert worker.name in words_in_first_columns("ARCHITECTURE.md")


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/own-kafka-and-postgresql.md"])
def test_pages_about_starting_processes_have_every_process(page: str) -> None:
    """Operators find each command that they have to start."""
    commands = [worker.command for worker in AT_HEADQUARTERS] + [("channel", "run")]
    text = (ROOT / page).read_text()
    assert [command for command in commands if f"tenten {' '.join(command)}" not in text] == []


def test_channel_process_passes_the_failpoints_of_its_parts() -> None:
    """`tenten channel run` passes them all, in the order of its parts, and with its API those of a till."""
    of_parts = [name for worker in workers.IN_CHANNEL for name in worker.failpoints]
    assert [*CHANNEL_FAILPOINTS] == [*of_parts, *STORE_FAILPOINTS]
