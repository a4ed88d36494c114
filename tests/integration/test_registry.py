"""Headquarters' legal entities and channels in its database: applied as a whole, used by running workers at once."""

import random
import threading
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tenten.consumers.headquarters import known_channels
from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.registry.apply import add_to_registry, apply_registry, compare_registry, fill_new_registry
from tenten.registry.history import list_history
from tenten.registry.tables import read_registry
from tenten.registry.toml import registry_toml
from tenten.registry.values import Registry, registry_of
from tenten.runtime.errors import InputRejected, SettingsError
from tenten.runtime.settings.registry_file import read_registry_file
from tenten.sql.engine import open_database
from tests.conftest import NewDatabase
from tests.faults.traffic import Store
from tests.scenes import Scene
from tests.settings_file import DEMF, USRT, channel, general, headquarters, kafka, legal_entity
from tests.threads import errors_of_threads
from tests.waiting import wait_for

DALLAS = channel("dallas")
HOUSTON = channel("houston", address_books=["US", "TX"])
COMPANY = USRT + DEMF + HOUSTON + DALLAS


@pytest.fixture
def engine(new_database: NewDatabase) -> Iterator[Engine]:
    """Headquarters' database with tables, without settings."""
    opened = open_database(new_database("headquarters"))
    yield opened
    opened.dispose()


@pytest.fixture
def wanted(tmp_path: Path) -> Any:
    """Returns the registry of a file with this text."""

    def read(document: str) -> Registry:
        file = tmp_path / "stores.toml"
        file.write_text(document)
        found = read_registry_file(file)
        return registry_of(found.legal_entities, found.channels)

    return read


def query(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, committed."""
    with engine.begin() as connection:
        rows = connection.execute(text(sql))
        return [tuple(row) for row in rows] if rows.returns_rows else []


def stored(engine: Engine) -> Registry:
    """The registry of the database."""
    with engine.begin() as connection:
        return read_registry(connection)


def test_apply_makes_the_registry_what_the_file_says_and_records_who_did_it(engine: Engine, wanted: Any) -> None:
    """Added, changed and removed in one step; the same file again changes nothing."""
    # given
    first = apply_registry(engine, wanted(COMPANY), source="settings apply", operator="mary")
    # when
    profile = 'creation = "sync"\nsync_seconds = 4\ntime_zone = "America/Chicago"\n'
    defaults = '[channels.houston.default_customer]\ncustomer_type = "organization"\naffiliations = ["vip", "b2b"]\n'
    changed = COMPANY.replace(DALLAS, "").replace(HOUSTON, HOUSTON + profile + defaults) + channel("austin")
    second = apply_registry(
        engine, wanted(changed), source="settings apply", operator="tom", to_remove=["channels.dallas"]
    )
    again = apply_registry(engine, wanted(changed), source="settings apply", to_remove=["channels.dallas"])
    # then
    assert first.settings() == {
        "added": ["legal_entities.demf", "legal_entities.usrt", "channels.dallas", "channels.houston"],
        "changed": [],
        "removed": [],
    }
    of_houston = ("creation", "default_customer.affiliations", "default_customer.customer_type", "sync_seconds")
    assert second.settings() == {
        "added": ["channels.austin"],
        "changed": [*(f"channels.houston.{name}" for name in of_houston), "channels.houston.time_zone"],
        "removed": ["channels.dallas"],
    }
    assert again.none
    with engine.begin() as connection:
        newest, oldest = list_history(connection, 10)
    assert (oldest.operator, newest.operator, newest.source) == ("mary", "tom", "settings apply")
    assert isinstance(newest.applied_at, datetime)
    assert {"setting": "channels.houston.sync_seconds", "before": 2.0, "after": 4.0} in newest.changed
    assert sorted(stored(engine).channels) == ["austin", "houston"]
    assert compare_registry(engine, wanted(changed)).none


def test_what_show_prints_is_a_file_that_changes_nothing(engine: Engine, wanted: Any) -> None:
    """Whatever the names of address books and groups contain."""
    strange = HOUSTON.replace('"TX"', r'"T\"X\\ \u00e9\u007f\U0001f600"')
    apply_registry(engine, wanted(USRT + strange), source="settings apply")
    query(engine, "UPDATE number_sequences SET next = 42")
    # when
    shown = registry_toml(stored(engine))
    # then
    assert tomllib.loads(shown)["legal_entities"]["usrt"]["account_numbers"]["next"] == 42
    assert compare_registry(engine, wanted(shown)).none


@pytest.mark.parametrize(
    ("file", "to_remove", "refusal"),
    [
        (COMPANY.replace(DALLAS, ""), [], "channels.dallas: headquarters has it and the file does not"),
        (COMPANY, ["channels.dallas"], "channels.dallas: the file has it"),
        (COMPANY.replace(DALLAS, channel("dallas", of="demf")), [], "channels.dallas.legal_entity: a channel keeps"),
        (COMPANY.replace("C-########", "C-#######"), [], "account_numbers.format: C-####### has fewer digits"),
        (COMPANY.replace(DEMF, ""), ["legal_entities.demf"], "legal_entities.demf: it has customers"),
    ],
    ids=["removed", "not removed", "moved", "narrowed", "with customers"],
)
def test_refused_change_applies_nothing(
    engine: Engine, wanted: Any, file: str, to_remove: list[str], refusal: str
) -> None:
    """Neither the refused change nor another one of the same file."""
    # given
    apply_registry(engine, wanted(COMPANY), source="settings apply")
    query(
        engine,
        "INSERT INTO customers SELECT (jsonb_populate_record(CAST(NULL AS customers), to_jsonb(given))).* FROM (SELECT "
        "'0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f' AS customer_id, 1 AS version, now() AS updated_at, "
        "'demf' AS legal_entity, 'person' AS customer_type, '' AS title, '' AS first_name, '' AS middle_name, "
        "'' AS last_name, '' AS organization_name, '' AS language, '' AS currency, '' AS customer_group, "
        "'none' AS receipt_preference, '' AS receipt_email, '' AS tax_number, CAST('[]' AS json) AS address_books, "
        "CAST('[]' AS json) AS affiliations, CAST('[]' AS json) AS attributes) AS given",
    )
    before = stored(engine)
    # when
    with pytest.raises(SettingsError, match=refusal):
        apply_registry(engine, wanted(file + channel("austin")), source="settings apply", to_remove=to_remove)
    # then
    assert stored(engine) == before
    assert query(engine, "SELECT count(*) FROM settings_history") == [(1,)]


def test_next_number_is_never_lowered(engine: Engine, wanted: Any) -> None:
    """Neither by a file with another first number, nor by removing the legal entity and adding it again."""
    # given
    apply_registry(engine, wanted(USRT), source="settings apply")
    query(engine, "UPDATE number_sequences SET next = 42")
    # when
    wider = legal_entity("usrt", "C-##########", continuous=False)
    apply_registry(engine, wanted(wider.replace("next = 1,", "next = 7,")), source="settings apply")
    apply_registry(engine, wanted(""), source="settings apply", to_remove=["legal_entities.usrt"])
    apply_registry(engine, wanted(wider), source="settings apply")
    # then
    assert query(engine, "SELECT format, next, continuous FROM number_sequences") == [("C-##########", 42, False)]


def test_operator_that_cannot_be_stored_is_refused(engine: Engine, wanted: Any) -> None:
    """As in stores."""
    with pytest.raises(InputRejected):
        apply_registry(engine, wanted(USRT), source="settings apply", operator="x" * 65)
    assert stored(engine).is_empty


def test_dry_run_refuses_and_reports_like_apply_and_writes_nothing(engine: Engine, wanted: Any) -> None:
    """So it can be trusted."""
    changes = apply_registry(engine, wanted(COMPANY), source="settings apply", dry_run=True)
    assert len(changes.added) == 4
    assert stored(engine).is_empty
    assert query(engine, "SELECT count(*) FROM settings_history") == [(0,)]


def test_two_commands_at_once_apply_one_after_the_other(engine: Engine, wanted: Any) -> None:
    """Each adds a channel to the same file: the second is refused, or sees what the first has written."""
    apply_registry(engine, wanted(COMPANY), source="settings apply")
    files = iter([wanted(COMPANY + channel(name)) for name in ("austin", "boston", "denver", "el_paso")])
    barrier = threading.Barrier(4, timeout=60)

    def apply() -> None:
        file = next(files)
        barrier.wait()
        apply_registry(engine, file, source="settings apply")

    # when
    failures = errors_of_threads(4, apply)
    # then
    assert [type(failure) for failure in failures] == [SettingsError] * 3
    assert len(stored(engine).channels) == 3


def test_file_of_a_machine_fills_a_new_registry_only_and_is_compared_later(engine: Engine, wanted: Any) -> None:
    """The numbers of the last release go on; a registry that was emptied on purpose stays empty."""
    # given: a database of the last release
    query(engine, "INSERT INTO number_sequences VALUES ('usrt', 'C-####', 42, true)")
    # when
    filled = fill_new_registry(engine, wanted(COMPANY), source="database upgrade")
    later = fill_new_registry(engine, wanted(COMPANY + channel("austin")), source="database upgrade")
    # then
    assert len(filled.added) == 4
    assert later.none
    assert query(engine, "SELECT format, next FROM number_sequences WHERE legal_entity = 'usrt'") == [
        ("C-########", 42)
    ]
    assert "austin" not in stored(engine).channels
    # when, then: a machine adds its own, and removes nothing
    assert add_to_registry(engine, wanted(USRT + channel("austin")), source="up").settings()["added"] == [
        "channels.austin"
    ]
    assert sorted(stored(engine).channels) == ["austin", "dallas", "houston"]


def test_tables_of_a_machine_are_ignored_and_mistakes_are_named(tmp_path: Path, wanted: Any) -> None:
    """A whole tenten.toml can be applied, and a file without databases; a misspelt setting is an error."""
    file = tmp_path / "tenten.toml"
    machine = general("test-") + 'authentication = "require"\n' + kafka("127.0.0.1:1") + '[http]\nhosts = ["hq"]\n'
    file.write_text(machine + headquarters("postgresql://x/y") + COMPANY)
    assert read_registry_file(file).ignored == (
        "prefix",
        "partitions",
        "kafka",
        "authentication",
        "headquarters",
        "http",
        "channels.NAME.database",
    )
    without_database = "\n".join(line for line in COMPANY.splitlines() if not line.startswith("database"))
    assert wanted(without_database) == wanted(COMPANY)
    for mistaken, problem in (
        (COMPANY.replace("address_books", "address_book", 1), "channels.houston.address_book: unknown setting"),
        (COMPANY + channel("x", of="frrt"), "channels.x.legal_entity: unknown legal entity frrt"),
        (COMPANY.replace('"USD"', '"US"'), "legal_entities.usrt.currency: write the three letters"),
        (COMPANY + 'offline_customers = "own"\n', "channels.dallas: offline_customers = .own. needs address_books"),
    ):
        with pytest.raises(SettingsError, match=problem):
            wanted(mistaken)


def test_running_worker_learns_of_a_new_channel_and_judges_what_was_held(scene: Scene) -> None:
    """Events of a channel that is added while it runs are settled without a restart."""
    # given
    paris = Store(channel_id="paris", legal_entity="usrt", rng=random.Random(6))
    early, late = paris.create(), paris.create()
    with scene.headquarters():
        (held,) = scene.ask(early)
        # when
        scene.toml.write_text(scene.toml.read_text() + channel("paris"))
        scene.apply_settings()
        # then
        wait_for(lambda: scene.replies(early)[0]["outcome"] == "SYNCHRONIZED", "the judgement")
        (reply,) = scene.ask(late)
    assert (held["outcome"], reply["outcome"], reply["judgement"]) == ("HELD", "SYNCHRONIZED", 1)


def test_worker_that_missed_the_notification_looks_an_unknown_channel_up(
    engine: Engine, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most once a second, and not at all for known channels."""
    # given
    apply_registry(engine, wanted(COMPANY), source="settings apply")
    registry = ChannelRegistry(engine)
    registry.refresh()
    refreshed: list[bool] = []
    monkeypatch.setattr(
        ChannelRegistry, "refresh", lambda self, real=ChannelRegistry.refresh: refreshed.append(real(self))
    )
    # when, then: known channels ask nothing
    registry.look_up(["houston", "dallas", "headquarters"])
    assert refreshed == []
    # when, then: an unknown one asks once
    for _ in range(100):
        registry.look_up(["paris"])
    assert refreshed == [False]
    apply_registry(engine, wanted(COMPANY + channel("paris")), source="settings apply")
    monkeypatch.setattr(known_channels, "LOOK_UP_SECONDS", 0.0)
    assert registry.look_up(["paris"]).legal_entity_by_channel["paris"] == "usrt"
    assert refreshed == [False, True]
