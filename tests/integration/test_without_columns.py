"""A channel on SQLite without the column library: other processes, where polars, arro3 and pgpq cannot be imported,
write the same rows as the columnar path does here.
"""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import delete, update

from tenten.avro.wire import contract, encode
from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.distribution.run import run as distribute
from tenten.consumers.channel.record_decoding import column_library_installed
from tenten.consumers.channel.settlement.run import run as settle
from tenten.consumers.channel.status import stopped_partitions
from tenten.kafka.partitioner import partition_of
from tenten.schemas.messages import Attribute, Customer, CustomerEvent, Outcome, to_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.engine import open_database
from tests.channel_scene import (
    CHANNEL,
    DEADLINE_SECONDS,
    DISTRIBUTION,
    REASON,
    RESYNC,
    SETTLEMENT,
    ChannelScene,
    changed,
    customer,
    guid,
    reply,
    set_channel_scene,
)
from tests.settings_file import PARTITIONS

TABLES: Final = (
    channel.customers,
    channel.customer_addresses,
    channel.customer_contacts,
    channel.snapshots,
    channel.outbox,
    channel.resync_keys,
)

BLOCKED: Final = """
import json, sys, threading
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("polars", "pyarrow", "arro3", "pgpq"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from tenten.settings import Settings
settings = Settings.model_validate(json.loads(sys.argv[1]))
channel, stop = sys.argv[2], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
"""
"""The start of a program; `stop` is set when its standard input is closed."""

ROOT: Final = Path(__file__).parents[2]
SURPLUS: Final = guid()
OUTCOMES: Final = (Outcome.SYNCHRONIZED, Outcome.REJECTED, Outcome.SUPERSEDED, Outcome.ERASED)


@pytest.fixture
def scenes(tmp_path: Path, bootstrap_servers: str, prefix: str) -> Iterator[tuple[ChannelScene, ChannelScene]]:
    """One channel with two databases: for the programs without columns, and for this process."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, "sqlite:///houston.db", address_books=["US"]) as plain:
        of_channel = plain.settings.channel(CHANNEL)
        database = f"sqlite:///{tmp_path / 'columns.db'}"
        channels = {**plain.settings.channels, CHANNEL: of_channel.model_copy(update={"database": database})}
        engine = open_database(database)
        yield plain, replace(plain, settings=plain.settings.model_copy(update={"channels": channels}), engine=engine)
        engine.dispose()


def test_rows_are_those_of_the_columnar_path(scenes: tuple[ChannelScene, ChannelScene]) -> None:
    """Thousands of snapshots, changes, tombstones and replies, and a resync after damage, end in the same tables."""
    # given
    plain, columnar = scenes
    assert column_library_installed()
    edited = _record_edits(plain)
    _copy_database(plain, columnar)
    _send_history(plain, edited)
    # when
    with _program(plain, DISTRIBUTION):
        plain.wait_until_level()
    with columnar.running(distribute):
        columnar.wait_until_level()
    # then
    assert _rows(plain) == _rows(columnar)
    assert len(plain.visible()) == 1_500 + 30
    # when
    with _program(plain, SETTLEMENT):
        plain.wait_until_replies_read()
    with columnar.running(settle):
        columnar.wait_until_replies_read()
    # then
    assert _rows(plain) == _rows(columnar)
    repaired = _rows(plain)
    # when
    for scene in scenes:
        _damage(scene)
    assert _rows(plain) == _rows(columnar) != repaired
    with _program(plain, RESYNC) as program:
        assert program.wait(DEADLINE_SECONDS) == 0
    assert resync(columnar.settings, CHANNEL)
    # then
    assert _rows(plain) == _rows(columnar) == repaired


def _record_edits(scene: ChannelScene) -> list[tuple[Customer, CustomerEvent]]:
    """Forty pending customers with an unsettled event, and their snapshots at headquarters."""
    edited = []
    for number in range(40):
        snapshot = customer(f"Edited {number}")
        clerks = replace(snapshot.customer, last_name=f"Clerk {number}")
        edited.append((snapshot, scene.create(snapshot.customer_id, clerks)))
    return edited


def _copy_database(source: ChannelScene, target: ChannelScene) -> None:
    with source.engine.connect() as source_connection, target.engine.connect() as target_connection:
        source_driver = source_connection.connection.driver_connection
        target_driver = target_connection.connection.driver_connection
        assert isinstance(source_driver, sqlite3.Connection)
        assert isinstance(target_driver, sqlite3.Connection)
        source_driver.backup(target_driver)


def _send_history(scene: ChannelScene, edited: Sequence[tuple[Customer, CustomerEvent]]) -> None:
    """More than 3,000 records of `customers`, and a reply to each edit; every fourth edited customer is erased."""
    attributes = (Attribute(name="shoe_size", integer=42), Attribute(name="vip", boolean=True))
    sent = [customer(f"Ann {number}", attributes=attributes) for number in range(2_000)]
    outcomes = [OUTCOMES[number % len(OUTCOMES)] for number in range(len(edited))]
    scene.headquarters.send(*sent, *(snapshot for snapshot, _ in edited))
    scene.headquarters.send(*(changed(snapshot, first_name="Élodie", contacts=()) for snapshot in sent[:1_000]))
    scene.headquarters.send(*(changed(snapshot, address_books=("JP",)) for snapshot in sent[1_000:1_250]))
    scene.headquarters.send(*(snapshot.customer_id for snapshot in sent[1_750:]))
    scene.headquarters.send(*(changed(snapshot, tax_number="7") for snapshot, _ in edited))
    scene.headquarters.send(
        *(
            snapshot.customer_id
            for (snapshot, _), outcome in zip(edited, outcomes, strict=True)
            if outcome is Outcome.ERASED
        )
    )
    scene.headquarters.reply(
        *(
            reply(event, outcome, reasons=(REASON,))
            if outcome is Outcome.REJECTED
            else reply(event, outcome, account_number=snapshot.account_number, version=2 + number % 3)
            for number, ((snapshot, event), outcome) in enumerate(zip(edited, outcomes, strict=True))
        )
    )


@contextmanager
def _program(scene: ChannelScene, program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the channel without the column library, for as long as the block. Its failure is raised."""
    arguments = [sys.executable, "-c", BLOCKED + program, scene.settings.model_dump_json(), CHANNEL]
    process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    except BaseException:
        process.kill()
        print(process.communicate()[1].decode())
        raise
    assert process.returncode == 0, errors.decode()


def _damage(scene: ChannelScene) -> None:
    """Change customers and children by hand, and add a customer that headquarters does not have."""
    surplus = {**scene.rows(channel.customers)[0], "customer_id": SURPLUS, "account_number": "C-0"}
    with scene.engine.begin() as connection:
        connection.execute(update(channel.customers).values(last_name="damaged"))
        connection.execute(delete(channel.customer_addresses).where(channel.customer_addresses.c.street == "1 Main"))
        connection.execute(channel.customers.insert(), surplus)


def _rows(scene: ChannelScene) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table, with settled or not in place of the time of settling."""
    rows = {table.name: scene.rows(table) for table in TABLES}
    for row in rows["outbox"]:
        row["settled_at"] = row["settled_at"] is not None
    return rows


def test_unreadable_snapshot_stops_its_partition(scenes: tuple[ChannelScene, ChannelScene]) -> None:
    """Among many records an unreadable one stops its partition, and the columnar path names the same record."""
    # given
    plain, _ = scenes
    before, behind = customer("Before"), customer("Behind")
    partition = partition_of(before.customer_id, PARTITIONS)
    behind = replace(behind, customer_id=_guid_in(partition))
    elsewhere = [replace(customer("Elsewhere"), customer_id=_guid_in((partition + 1) % PARTITIONS)) for _ in range(30)]
    value = encode(contract("Customer"), to_avro(behind))
    for bad in ((before.customer_id, b"rubbish"), (before.customer_id, value)):
        plain.headquarters.send(before)
        plain.headquarters.raw(CUSTOMERS.name, bad)
        plain.headquarters.send(behind, *elsewhere)
    # when
    with _program(plain, DISTRIBUTION):
        plain.wait(lambda: len(plain.visible()) == 31, "the readable snapshots")
    # then
    assert set(plain.visible()) == {before.customer_id, *(snapshot.customer_id for snapshot in elsewhere)}
    (unreadable,) = stopped_partitions(plain.settings, CHANNEL)
    offset = plain.positions(plain.settings.topic(CUSTOMERS))[partition]
    assert (unreadable.partition, unreadable.offset) == (partition, offset)


def _guid_in(partition: int) -> str:
    """A GUID whose records go to this partition of `customers`."""
    return next(new for new in iter(guid, None) if partition_of(new, PARTITIONS) == partition)


def test_postgresql_needs_the_extra(scenes: tuple[ChannelScene, ChannelScene]) -> None:
    """A channel on PostgreSQL ends with a message that names what to install."""
    # given
    plain, _ = scenes
    of_channel = plain.settings.channel(CHANNEL)
    on_postgresql = of_channel.model_copy(update={"database": "postgresql://nowhere/houston"})
    settings = plain.settings.model_copy(update={"channels": {CHANNEL: on_postgresql}})
    for program in (DISTRIBUTION, RESYNC):
        # when
        failed = subprocess.run(
            [sys.executable, "-c", BLOCKED + program, settings.model_dump_json(), CHANNEL],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        # then
        assert failed.returncode == 1
        assert b"DatabaseRefused" in failed.stderr
        assert b"pip install 'tenten-commerce[columns]'" in failed.stderr
