"""Upgrades of real databases of both kinds, and the check of their version."""

import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, Table, insert, inspect, select, text

from tenten import schemas
from tenten.runtime.errors import DatabaseRefused
from tenten.schemas.tables import channel, headquarters
from tenten.sql.migrations import check_version, upgrade_channel, upgrade_headquarters
from tests.conftest import NewDatabase
from tests.opened_databases import DEADLINE_SECONDS, add_topic, new_url, opened, store, topics
from tests.schema_compare import catalogue
from tests.threads import errors_of_threads
from tests.waiting import wait_for

__all__ = ["new_url", "store"]


def _assert_equal_to_metadata(upgraded: Engine, made: Engine, metadata: MetaData, version_table: str) -> None:
    metadata.create_all(made)
    with upgraded.begin() as migrated, made.begin() as declared:
        options = {"compare_type": True, "compare_server_default": True, "version_table": version_table}
        assert compare_metadata(MigrationContext.configure(migrated, opts=options), metadata) == []
        assert catalogue(migrated) == catalogue(declared)


def test_headquarters_migrations_create_the_declared_tables(new_database: NewDatabase) -> None:
    """All migrations together create the tables and indexes of `schemas/tables/headquarters.py`."""
    with opened(new_database()) as upgraded, opened(new_database()) as made:
        # when
        upgrade_headquarters(upgraded)

        # then
        _assert_equal_to_metadata(upgraded, made, headquarters.metadata, "headquarters_version")


def test_channel_migrations_create_the_declared_tables(new_url: Callable[[], str]) -> None:
    """All migrations together create the tables and indexes of `schemas/tables/channel.py`."""
    with opened(new_url()) as upgraded, opened(new_url()) as made:
        # when
        upgrade_channel(upgraded)

        # then
        _assert_equal_to_metadata(upgraded, made, channel.metadata, "channel_version")


_MIGRATIONS = Path(schemas.__file__).parent / "migrations"


def _upgrade_to(engine: Engine, revision: str, which: str = "headquarters") -> None:
    """Bring an empty database to an earlier revision."""
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection, "version_table": f"{which}_version"})
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("version_locations", str(_MIGRATIONS / which / "versions"))
        config.set_main_option("path_separator", "newline")
        command.upgrade(config, revision)


_CUSTOMER_OF_0_1_0 = text(
    """
    INSERT INTO customers (customer_id, account_number, version, updated_at, legal_entity, customer_type, title,
        first_name, middle_name, last_name, organization_name, language, currency, customer_group, receipt_preference,
        receipt_email, tax_number, address_books, affiliations, attributes, search_name)
    VALUES (:customer_id, NULL, 0, '2026-03-01T12:00:00+00:00', 'usrt', 'person', '', 'Zoë', '', :last_name, '', '',
        '', '', 'none', '', '', '[]', '[]', '[]', :search_name)
    """
)


_POSITION = text("INSERT INTO positions (topic, topic_id, partition, next_offset) VALUES ('customers', 'id', 0, 7)")


def test_channel_of_the_last_release_keeps_its_customers_and_resyncs(new_url: Callable[[], str]) -> None:
    """Search names lose their accents; a resync is requested, for values that headquarters may have sent already."""
    customers = [
        {
            "customer_id": f"0197a3f2-8a41-7c3e-9d55-{number:012x}",
            "last_name": name,
            "search_name": f"zoë {name.lower()}",
        }
        for number, name in enumerate(["Øster", "Weiß"] * 1_001)
    ]
    with opened(new_url()) as engine:
        # given
        _upgrade_to(engine, "0002", "channel")
        with engine.begin() as connection:
            connection.execute(_CUSTOMER_OF_0_1_0, customers)
            connection.execute(_POSITION)

        # when
        upgrade_channel(engine)

        # then
        with engine.begin() as connection:
            stored = connection.execute(select(channel.customers).order_by(channel.customers.c.customer_id)).all()
            requests = connection.execute(select(channel.resync_requests)).all()
        assert [row.search_name for row in stored] == ["zoe oster", "zoe weiss"] * 1_001
        assert {(row.first_name, row.known_as) for row in stored} == {("Zoë", None)}
        assert [row.reason for row in requests] == ["customers have gained the field known_as"]


GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE = {"topic": "t", "partition": 0, "offset": 0}
SALE = {
    "transaction_id": GUID,
    "kind": "order",
    "business_date": NOON.date(),
    "currency": "USD",
    "content": {},
    "answer": 0,
    "occurred_at": NOON,
}


def test_channel_rows_of_the_last_release_have_no_operator(new_url: Callable[[], str]) -> None:
    """Orders, ends of day and cards are kept, with null."""
    end_of_day = {"end_of_day_id": GUID, "business_date": NOON.date(), "transactions": 0, "control_totals": []}
    card = {"card_number": "LC-1001", "customer_id": GUID, "status": "kept", "asked_at": NOON}
    rows: dict[Table, dict[str, Any]] = {
        channel.transactions: SALE | {"total": "1", "status": "pending", "updated_at": NOON},
        channel.end_of_days: end_of_day | {"status": "pending", "answer": 0, "closed_at": NOON, "updated_at": NOON},
        channel.loyalty_cards: card,
    }
    with opened(new_url()) as engine:
        # given
        _upgrade_to(engine, "0003", "channel")
        with engine.begin() as connection:
            for table, row in rows.items():
                connection.execute(insert(table).values(row))

        # when
        upgrade_channel(engine)

        # then
        _assert_without_operator(engine, rows)


def test_headquarters_rows_of_the_last_release_have_no_operator(new_database: NewDatabase) -> None:
    """Logged events, audited changes, orders and statements are kept, with null."""
    event = {"event_id": GUID, "customer_id": GUID, "channel_id": "houston"}
    logged = {"kind": "created", "outcome": "synchronized", "reasons": [], "occurred_at": NOON, "received_at": NOON}
    sold = {"channel_id": "houston", "legal_entity": "usrt", "status": "waiting", "reasons": [], "total": 1}
    closed = {"channel_id": "houston", "business_date": NOON.date(), "number": 1, "kind": "end_of_day"}
    rows: dict[Table, dict[str, Any]] = {
        headquarters.synchronization_log: event | logged | PLACE,
        headquarters.customer_audit: event | {"version": 2, "path": "title", "changed_at": NOON},
        headquarters.retail_transactions: SALE | sold | PLACE | {"received_at": NOON, "changed_at": NOON},
        headquarters.statements: closed
        | {"statement_id": GUID, "status": "waiting", "reasons": [], "totals": {}, "answer": 0}
        | {"closed_at": NOON, "received_at": NOON},
    }
    with opened(new_database()) as engine:
        # given
        _upgrade_to(engine, "0005")
        with engine.begin() as connection:
            for table, row in rows.items():
                connection.execute(insert(table).values(row))

        # when
        upgrade_headquarters(engine)

        # then
        _assert_without_operator(engine, rows)


def _assert_without_operator(engine: Engine, rows: Mapping[Table, Mapping[str, Any]]) -> None:
    """Each table has this row, with null as its operator."""
    with engine.begin() as connection:
        for table, row in rows.items():
            (stored,) = connection.execute(select(table)).mappings()
            assert {name: stored[name] for name in row} == row
            assert stored["operator"] is None


def test_upgrade_of_a_new_channel_requests_no_resync(store: Engine) -> None:
    """It has read nothing, so it lacks nothing."""
    with store.begin() as connection:
        assert connection.execute(select(channel.resync_requests)).all() == []


def test_migration_that_adds_a_customer_field_requests_a_resync(new_url: Callable[[], str]) -> None:
    """A store that is upgraded after headquarters has read customers without the field."""
    revisions = sorted(file.stem[:4] for file in (_MIGRATIONS / "channel" / "versions").glob("*.py"))
    with opened(new_url()) as engine:
        # given
        _upgrade_to(engine, revisions[0], "channel")
        with engine.begin() as connection:
            connection.execute(_POSITION)
        known, requested = _customer_columns(engine), 0

        for revision in revisions[1:]:
            # when
            _upgrade_to(engine, revision, "channel")

            # then
            columns, requests = _customer_columns(engine), _resync_requests(engine)
            assert columns == known or requests > requested, (revision, columns - known)
            known, requested = columns, requests


def _customer_columns(engine: Engine) -> set[tuple[str, str]]:
    tables = ("customers", "customer_addresses", "customer_contacts")
    return {(table, column["name"]) for table in tables for column in inspect(engine).get_columns(table)}


def _resync_requests(engine: Engine) -> int:
    with engine.begin() as connection:
        if not inspect(connection).has_table("resync_requests"):
            return 0
        return len(connection.execute(select(channel.resync_requests)).all())


def test_upgrade_keeps_unsent_replies(new_database: NewDatabase) -> None:
    """Replies that an earlier release left, a row each, keep their order; also those being written meanwhile."""
    ids = [f"00000000-0000-7000-8000-{number:012}" for number in range(10_001)]
    random.Random(1).shuffle(ids)
    due = text("INSERT INTO replies_due (channel_id, transaction_id, payload) VALUES (:channel, :id, :payload)")
    rows = [{"channel": f"c{guid[-1]}", "id": guid, "payload": guid.encode()} for guid in ids]
    with opened(new_database()) as engine, ThreadPoolExecutor(1) as background:
        # given
        _upgrade_to(engine, "0003")
        with engine.begin() as connection:
            connection.execute(due, rows[:-1])

        # when
        with engine.begin() as writing:
            writing.execute(due, rows[-1:])
            upgrading = background.submit(upgrade_headquarters, engine)
            waits = text(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'replies_due'::regclass)"
            )
            wait_for(lambda: bool(writing.scalar(waits)), "the upgrade to wait")
        upgrading.result(DEADLINE_SECONDS)

        # then
        with engine.begin() as connection:
            found = connection.execute(select(headquarters.replies_due).order_by(text("sequence"))).all()
        assert [row.answer_count for row in found] == [10_000, 1]
        replies = [
            reply for row in found for reply in zip(row.channel_ids, row.transaction_ids, row.payloads, strict=True)
        ]
        assert replies == [(f"c{guid[-1]}", guid, guid.encode()) for guid in ids]


def test_second_upgrade_keeps_rows(store: Engine) -> None:
    """An upgrade of a database of this release changes nothing."""
    # given
    with store.begin() as connection:
        add_topic(connection, "customers")

    # when
    upgrade_channel(store)

    # then
    check_version(store, "channel")
    with store.begin() as connection:
        assert topics(connection) == ["customers"]


def test_failed_upgrade_creates_no_table(new_url: Callable[[], str]) -> None:
    """A migration is one transaction: if its last table cannot be created, none is."""
    with opened(new_url()) as engine:
        # given
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE resync_keys (in_the_way INTEGER)"))

        # when
        with pytest.raises(Exception, match="resync_keys"):
            upgrade_channel(engine)

        # then
        with engine.begin() as connection:
            assert inspect(connection).get_table_names() == ["resync_keys"]


def test_concurrent_upgrades_create_the_tables_once(new_url: Callable[[], str]) -> None:
    """Processes that start together upgrade one after the other; none fails."""
    # given
    url = new_url()
    barrier = threading.Barrier(4, timeout=60)

    def upgrade() -> None:
        with opened(url) as engine:
            barrier.wait()
            upgrade_channel(engine)
            check_version(engine, "channel")

    # when
    failures = errors_of_threads(4, upgrade)

    # then
    assert failures == []


def test_upgrade_creates_the_directory_of_a_sqlite_file(tmp_path: Path) -> None:
    """A new till needs no preparation."""
    with opened(f"sqlite:///{tmp_path}/tills/3.db") as engine:
        # when
        upgrade_channel(engine)

        # then
        check_version(engine, "channel")


def test_database_that_was_not_upgraded_is_refused(new_url: Callable[[], str]) -> None:
    """A process that starts too early names the command to run, and creates no empty file."""
    # given
    url = new_url()
    with opened(url) as engine:
        # when
        with pytest.raises(DatabaseRefused) as refused:
            check_version(engine, "channel")

        # then
        assert "run `tenten database upgrade channel NAME`" in str(refused.value)
        assert engine.dialect.name == "postgresql" or not Path(str(engine.url.database)).exists()


def test_database_of_a_newer_release_is_refused(store: Engine) -> None:
    """An older release neither uses nor upgrades newer tables."""
    # given
    with store.begin() as connection:
        connection.execute(text("UPDATE channel_version SET version_num = '9999'"))

    # when
    with pytest.raises(DatabaseRefused) as at_start:
        check_version(store, "channel")
    with pytest.raises(DatabaseRefused) as at_upgrade:
        upgrade_channel(store)

    # then
    assert "newer tenten" in str(at_start.value)
    assert "newer tenten" in str(at_upgrade.value)


def test_database_of_the_other_kind_is_refused(headquarters_url: str) -> None:
    """A channel with the address of headquarters' database does not change it."""
    with opened(headquarters_url) as engine:
        # given
        upgrade_headquarters(engine)

        # when
        with pytest.raises(DatabaseRefused) as at_upgrade:
            upgrade_channel(engine)
        with pytest.raises(DatabaseRefused) as at_start:
            check_version(engine, "channel")

        # then
        assert "is a headquarters database: channel needs its own" in str(at_upgrade.value)
        assert "is a headquarters database" in str(at_start.value)
