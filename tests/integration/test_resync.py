"""Resync: the full sync makes a channel equal to the topic, while its tables stay complete, on both databases."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update
from structlog.testing import capture_logs

from tenten.consumers.channel.distribution import topic_reading
from tenten.consumers.channel.distribution.replay import SnapshotUnreadable
from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.distribution.run import run
from tenten.consumers.channel.distribution.surplus import deletable
from tenten.consumers.channel.distribution.topic_reading import read_up_to
from tenten.kafka.assigned_reader import AssignedReader
from tenten.runtime.errors import LockHeld
from tenten.schemas.messages import EventKind
from tenten.schemas.tables import channel
from tenten.schemas.topics import CUSTOMERS, HEADQUARTERS_STATUS
from tenten.sql.engine import consistent_view
from tenten.sql.locks import apply_lock, resync_lock
from tenten.status import channel_status
from tests.channel_scene import (
    AT,
    CHANNEL,
    RESYNC,
    ChannelScene,
    changed,
    customer,
    customer_row,
    die_at,
    event,
    guid,
    set_channel_scene,
    state,
)
from tests.threads import Worker


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, channel_url: str) -> Iterator[ChannelScene]:
    """A channel on each of the two databases; it has the customers of the address book US."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, channel_url, address_books=["US"]) as made:
        yield made


def test_empty_channel_gets_everything(scene: ChannelScene) -> None:
    """A channel that has never read gets all customers and the end positions; progress reaches the total."""
    # given
    sent = [customer(f"Ann {number}") for number in range(60)]
    scene.headquarters.send(*sent)
    progress: list[tuple[int, int]] = []
    noted: list[dict[str, Any]] = []

    def follow(done: int, total: int) -> None:
        progress.append((done, total))
        noted.extend(scene.rows(channel.loading))

    # when
    finished = resync(scene.settings, CHANNEL, follow)
    # then
    assert finished
    assert scene.visible() == {
        snapshot.customer_id: (snapshot.account_number, 1, snapshot.customer.first_name) for snapshot in sent
    }
    assert scene.counts() == (60, 60, 120)
    assert scene.positions(scene.settings.topic(CUSTOMERS)) == scene.headquarters.ends(scene.settings.topic(CUSTOMERS))
    assert scene.rows(channel.resync_keys) == []
    total = sum(scene.headquarters.ends(scene.settings.topic(CUSTOMERS)).values())
    assert progress[-1] == (total, total)
    assert progress == sorted(progress)
    assert {(load["kind"], load["total"]) for load in noted} == {("first_load", total)}
    assert scene.rows(channel.loading) == []


def test_every_kind_of_drift_is_repaired(scene: ChannelScene) -> None:
    """Edited rows and children, missing and surplus customers, versions too high or low: all become as in the topic."""
    # given
    sent = {name: customer(name) for name in ("Same", "Edited", "Child", "Orphaned", "Missing", "Future", "Past")}
    scene.headquarters.send(*sent.values())
    with scene.running(run):
        scene.wait_until_level()
    before = [scene.rows(table) for table in (channel.customers, channel.customer_addresses, channel.customer_contacts)]
    surplus = {**before[0][0], "customer_id": guid()}

    def of(name: str) -> str:
        return sent[name].customer_id

    customers, addresses, contacts = channel.customers.c, channel.customer_addresses.c, channel.customer_contacts.c
    with scene.engine.begin() as connection:
        connection.execute(update(channel.customers).where(customers.customer_id == of("Edited")).values(last_name="X"))
        connection.execute(
            update(channel.customers).where(customers.customer_id == of("Future")).values(version=9, first_name="Y")
        )
        connection.execute(
            update(channel.customers).where(customers.customer_id == of("Past")).values(version=0, first_name="Z")
        )
        connection.execute(
            update(channel.customer_contacts).where(contacts.customer_id == of("Child")).values(value="?")
        )
        connection.execute(delete(channel.customer_addresses).where(addresses.customer_id == of("Orphaned")))
        connection.execute(
            channel.customer_addresses.insert(),
            {**before[1][0], "customer_id": of("Orphaned"), "address_id": guid()},
        )
        for table in (channel.customers, channel.customer_addresses, channel.customer_contacts):
            connection.execute(delete(table).where(table.c.customer_id == of("Missing")))
        connection.execute(channel.customers.insert(), surplus)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    after = [scene.rows(table) for table in (channel.customers, channel.customer_addresses, channel.customer_contacts)]
    assert after == before


def test_pending_customers_and_unsettled_edits_stay(scene: ChannelScene) -> None:
    """A resync keeps customers that headquarters does not know yet, and keeps edits visible."""
    # given
    first = customer("Ann")
    scene.headquarters.send(first)
    with scene.running(run):
        scene.wait_until_level()
    scene.edit(first, replace(first.customer, first_name="Clerk"), ["first_name"])
    pending = scene.create(guid(), state("Pending"))
    edited_and_deleted = replace(first, customer_id=guid())
    with scene.engine.begin() as connection:
        row = {**scene.rows(channel.customers)[0], "customer_id": edited_and_deleted.customer_id}
        connection.execute(channel.customers.insert(), row)
    scene.edit(edited_and_deleted, replace(first.customer, first_name="Gone?"), ["first_name"])
    scene.headquarters.send(changed(first, last_name="New"))
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    assert scene.visible() == {
        first.customer_id: (first.account_number, 2, "Clerk"),
        pending.customer_id: (None, 0, "Pending"),
        edited_and_deleted.customer_id: (first.account_number, 1, "Gone?"),
    }
    (row,) = [row for row in scene.rows(channel.customers) if row["customer_id"] == first.customer_id]
    assert row["last_name"] == "New"


def test_customers_outside_the_filter_leave(scene: ChannelScene) -> None:
    """Customers outside the channel's filter are deleted, although the topic has them, and however many they are."""
    # given
    kept, *foreign = customer("Kept", address_books=("US",)), *(customer(address_books=("JP",)) for _ in range(9))
    scene.headquarters.send(kept, *foreign)
    with scene.running(run):
        scene.wait_until_level()
    _insert_copies(scene, [snapshot.customer_id for snapshot in foreign])
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    assert set(scene.visible()) == {kept.customer_id}


def _insert_copies(scene: ChannelScene, ids: Sequence[str]) -> None:
    """Insert customers with these ids and numbers of their own, otherwise as the first of the channel."""
    first = scene.rows(channel.customers)[0]
    rows = [
        {**first, "customer_id": customer_id, "account_number": f"S-{number}"} for number, customer_id in enumerate(ids)
    ]
    with scene.engine.begin() as connection:
        connection.execute(channel.customers.insert(), rows)


def test_many_surplus_customers_are_deleted_only_with_consent(scene: ChannelScene) -> None:
    """More than a tenth: they are kept, logged and reported in the status; with consent they are deleted."""
    # given
    sent = [customer(f"Ann {number}") for number in range(4)]
    scene.headquarters.send(*sent)
    with scene.running(run):
        scene.wait_until_level()
    surplus = [guid() for _ in range(5)]
    _insert_copies(scene, surplus)
    # when
    with capture_logs() as logs:
        assert resync(scene.settings, CHANNEL)
    # then
    in_topic = {snapshot.customer_id for snapshot in sent}
    assert set(scene.visible()) == in_topic | set(surplus)
    (kept,) = [entry for entry in logs if entry["event"] == "surplus_kept"]
    assert (kept["log_level"], kept["surplus"], kept["customers"]) == ("error", 5, 9)
    assert "did not find 5 customers" in (channel_status(scene.settings, CHANNEL).problem or "")
    # when
    assert resync(scene.settings, CHANNEL, consent=True)
    # then
    assert set(scene.visible()) == in_topic
    assert channel_status(scene.settings, CHANNEL).problem is None


@pytest.mark.parametrize("declared", ["not", "beyond the end"])
def test_surplus_stays_while_the_topic_may_be_incomplete(scene: ChannelScene, declared: str) -> None:
    """Headquarters has not declared the topic complete, or the topic has lost its end: nobody is deleted, even with
    consent.
    """
    # given
    sent = customer("Ann")
    scene.headquarters.send(sent)
    with scene.running(run):
        scene.wait_until_level()
    surplus = guid()
    _insert_copies(scene, [surplus])
    if declared == "not":
        scene.headquarters.raw(HEADQUARTERS_STATUS.name, (CUSTOMERS.name, None))
    else:
        scene.headquarters.declare_complete(offset=1_000)
    # when
    assert resync(scene.settings, CHANNEL, consent=True)
    # then
    assert set(scene.visible()) == {sent.customer_id, surplus}
    assert "may lack them" in (channel_status(scene.settings, CHANNEL).problem or "")
    # when
    scene.headquarters.declare_complete()
    assert resync(scene.settings, CHANNEL)
    # then
    assert set(scene.visible()) == {sent.customer_id}
    assert scene.rows(channel.resync_requests) == []


def test_surplus_that_may_be_deleted_without_consent() -> None:
    """A tenth of the channel's customers; in a small channel at most 100, and never more than half."""
    assert [deletable(count) for count in (0, 1, 2, 9, 150, 200, 900, 5_000, 1_000_000)] == [
        *(0, 0, 1, 4, 75, 100, 100, 500, 100_000)
    ]


def test_customer_whose_reply_was_faster_than_the_snapshot_stays(scene: ChannelScene) -> None:
    """Numbered and edited by replies whose snapshots are not in the topic yet: neither is deleted or taken back."""
    # given
    known = customer("Known")
    scene.headquarters.send(known, customer("Other"))
    with scene.running(run):
        scene.wait_until_level()
    new = state("New")
    created = event(guid(), new, ("first_name", "last_name"), kind=EventKind.CREATED)
    edited_state = replace(known.customer, first_name="Edited")
    edited = event(known.customer_id, edited_state, ("first_name",))
    with scene.engine.begin() as connection:
        connection.execute(insert(channel.customers), customer_row(created.customer_id, "C-00009999", 0, new))
        connection.execute(
            update(channel.customers)
            .where(channel.customers.c.customer_id == known.customer_id)
            .values(customer_row(known.customer_id, known.account_number, 1, edited_state))
        )
    scene.append(created, settled_at=AT, outcome="synchronized", account_number="C-00009999", version=1)
    scene.append(edited, settled_at=AT, outcome="synchronized", version=2)
    # when
    assert resync(scene.settings, CHANNEL, consent=True)
    # then
    visible = scene.visible()
    assert visible[created.customer_id] == ("C-00009999", 0, "New")
    assert visible[known.customer_id] == (known.account_number, 1, "Edited")


def test_single_read_never_shows_what_the_channel_has_passed(
    scene: ChannelScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in small batches, older records come before newer ones: a customer whose row is missing, or has a version
    that is too high, is written once, in the last version; an erased customer never.
    """
    # given
    first, other = customer("One"), customer("First")
    erased = customer("Erased")
    scene.headquarters.send(first, other, erased, *(customer(f"Ann {number}") for number in range(30)))
    scene.headquarters.send(changed(first, first_name="Two"), changed(other, first_name="Second"))
    last = replace(changed(first, first_name="Three"), version=3)
    scene.headquarters.send(last, erased.customer_id)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        for table in (channel.customers, channel.customer_addresses, channel.customer_contacts):
            connection.execute(delete(table).where(table.c.customer_id == first.customer_id))
        wrong = update(channel.customers).where(channel.customers.c.customer_id == other.customer_id)
        connection.execute(wrong.values(version=9, first_name="Ninth"))
    _record_writes(scene)
    monkeypatch.setattr(topic_reading, "RECORDS_MAX", 1)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    with scene.engine.begin() as connection:
        written = connection.execute(text("SELECT first_name FROM written")).scalars().all()
    assert sorted(written) == ["Second", "Three"]
    assert scene.visible()[first.customer_id] == (first.account_number, 3, "Three")
    assert scene.visible()[other.customer_id] == (other.account_number, 2, "Second")
    assert erased.customer_id not in scene.visible()


def test_tombstone_before_a_newer_snapshot_erases_nothing(scene: ChannelScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer that was erased and sent again, both before the channel's position, keeps its row and its edit."""
    # given
    ann = customer("Ann")
    again = changed(ann, last_name="Again")
    scene.headquarters.send(ann, ann.customer_id)
    scene.headquarters.send(again)
    with scene.running(run):
        scene.wait_until_level()
    scene.edit(again, replace(again.customer, first_name="Clerk"), ["first_name"])
    monkeypatch.setattr(topic_reading, "RECORDS_MAX", 1)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    assert scene.visible() == {ann.customer_id: (ann.account_number, 2, "Clerk")}
    assert [row["settled_at"] for row in scene.rows(channel.outbox)] == [None]


def test_unreadable_snapshot_that_a_newer_one_follows_is_ignored(
    scene: ChannelScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last record of a customer must be readable, also where the two are read in different batches."""
    # given
    ann = customer("Ann")
    scene.headquarters.raw(CUSTOMERS.name, (ann.customer_id, b"rubbish"))
    scene.headquarters.send(ann)
    monkeypatch.setattr(topic_reading, "RECORDS_MAX", 1)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    assert scene.visible() == {ann.customer_id: (ann.account_number, 1, "Ann")}


def test_customer_that_live_distribution_adds_at_the_end_stays(scene: ChannelScene) -> None:
    """Live distribution applies a new customer while the resync waits for the apply lock: it is not surplus."""
    # given
    scene.headquarters.send(*(customer(f"Ann {number}") for number in range(4)))
    with scene.running(run):
        scene.wait_until_level()
    name, new, is_read = scene.settings.topic(CUSTOMERS), customer("New"), Event()

    def note_progress(done: int, total: int) -> None:
        if done == total:
            is_read.set()

    # when
    with apply_lock(scene.engine):
        resyncing = Worker(lambda _: resync(scene.settings, CHANNEL, note_progress))
        scene.wait(is_read.is_set, "the target of the resync")
        scene.headquarters.send(new)
        _insert_copies(scene, [new.customer_id])
        ends = scene.headquarters.ends(name)
        with scene.engine.begin() as connection:
            for partition, end in ends.items():
                of_partition = update(channel.positions).where(channel.positions.c.partition == partition)
                connection.execute(of_partition.values(next_offset=end))
    scene.wait(resyncing.ended, "the end of the resync")
    resyncing.check()
    # then
    assert scene.visible()[new.customer_id] == (new.account_number, 1, "New")
    assert scene.positions(name) == ends


def test_position_past_the_end_of_the_topic_is_corrected(scene: ChannelScene) -> None:
    """The topic has lost its last records: the resync ends at its end, where the channel continues."""
    # given
    ann = customer("Ann")
    scene.headquarters.send(ann)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        connection.execute(update(channel.positions).values(next_offset=1_000))
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    name = scene.settings.topic(CUSTOMERS)
    assert scene.positions(name) == scene.headquarters.ends(name)
    assert set(scene.visible()) == {ann.customer_id}


def test_readers_see_a_complete_table_and_its_dependants_survive(scene: ChannelScene) -> None:
    """A view shows every customer at every moment, a long reader stops nothing, and grants and publications stay."""
    # given
    sent = [customer(f"Ann {number}") for number in range(300)]
    scene.headquarters.send(*sent)
    with scene.running(run):
        scene.wait_until_level()
    statements = ["CREATE VIEW seen AS SELECT customer_id, tax_number FROM customers"]
    is_postgresql = scene.engine.dialect.name == "postgresql"
    if is_postgresql:
        statements += ["GRANT SELECT ON customers TO PUBLIC", "CREATE PUBLICATION sent FOR TABLE customers"]
    with scene.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(update(channel.customers).values(tax_number="drift"))
    stop = Event()
    counts: list[int] = []

    def count_rows() -> None:
        while not stop.is_set():
            with consistent_view(scene.engine) as connection:
                counts.append(connection.execute(text("SELECT count(*) FROM seen")).scalar_one())

    counting = Worker(lambda _: count_rows())
    # when
    with consistent_view(scene.engine) as long_reader:
        seen_by_reader = text("SELECT count(*) FROM seen WHERE tax_number = 'drift'")
        assert long_reader.execute(seen_by_reader).scalar_one() == 300
        assert resync(scene.settings, CHANNEL)
        assert long_reader.execute(seen_by_reader).scalar_one() == 300
    stop.set()
    scene.wait(counting.ended, "the end of counting")
    counting.check()
    # then
    assert set(counts) == {300}
    with scene.engine.begin() as connection:
        assert connection.execute(seen_by_reader).scalar_one() == 0
        if is_postgresql:
            granted = text("SELECT has_table_privilege('pg_monitor', 'customers', 'SELECT')")
            assert connection.execute(granted).scalar_one()
            published = text("SELECT tablename FROM pg_publication_tables WHERE pubname = 'sent'")
            assert connection.execute(published).scalar_one() == "customers"


def test_older_versions_and_erased_customers_are_never_visible(scene: ChannelScene) -> None:
    """Every write to `customers` during the resync is recorded: only last versions, and nothing of erased customers."""
    # given
    first = customer("One")
    last = changed(changed(first, first_name="Two"), first_name="Three")
    erased = customer("Erased")
    scene.headquarters.send(first, erased)
    scene.headquarters.send(changed(first, first_name="Two"), changed(erased, first_name="Still"))
    scene.headquarters.send(last, erased.customer_id)
    _record_writes(scene)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    with scene.engine.begin() as connection:
        assert connection.execute(text("SELECT first_name FROM written")).scalars().all() == ["Three"]
    assert scene.visible() == {first.customer_id: (first.account_number, 3, "Three")}


def _record_writes(scene: ChannelScene) -> None:
    """Record every written first name with a database trigger."""
    with scene.engine.begin() as connection:
        connection.execute(text("CREATE TABLE written (first_name text)"))
        if scene.engine.dialect.name == "postgresql":
            connection.execute(
                text(
                    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN INSERT INTO written VALUES (NEW.first_name); RETURN NEW; END $$"
                )
            )
            connection.execute(
                text("CREATE TRIGGER note AFTER INSERT OR UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION note()")
            )
        else:
            for change in ("INSERT", "UPDATE"):
                connection.exec_driver_sql(
                    f"CREATE TRIGGER note_{change} AFTER {change} ON customers "  # noqa: S608 - our own names
                    "BEGIN INSERT INTO written VALUES (NEW.first_name); END"
                )


def test_target_behind_control_markers_is_reached(scene: ChannelScene) -> None:
    """The target is reached although a control marker follows the last snapshot before it; later snapshots are not
    returned.
    """
    # given
    topic = scene.settings.topic(CUSTOMERS)
    ann = customer("Ann")
    scene.headquarters.send(ann)
    (partition,) = (number for number, end in scene.headquarters.ends(topic).items() if end)
    scene.headquarters.send(replace(ann, version=2))
    target = scene.headquarters.ends(topic)[partition] - 2
    # when
    with AssignedReader(scene.settings, topic, "resync", {}) as reader:

        def offsets_from(start: int) -> list[int]:
            steps = read_up_to(reader, {partition: start}, {partition: target}, Event())
            return [offset for records, _ in steps for offset in records.offsets]

        whole, rest = offsets_from(0), offsets_from(1)
    # then
    assert (target, whole, rest) == (2, [0], [])


def test_unchanged_customers_are_not_written(scene: ChannelScene) -> None:
    """A resync of a channel that equals the topic writes nothing."""
    # given
    scene.headquarters.send(*(customer(f"Ann {number}") for number in range(20)))
    with scene.running(run):
        scene.wait_until_level()
    _record_writes(scene)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    with scene.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM written")).scalar_one() == 0


def test_live_distribution_continues_meanwhile(scene: ChannelScene) -> None:
    """Changes, new customers and erasures that arrive while one resync follows the other all end up in the channel."""
    # given
    sent = {snapshot.customer_id: snapshot for snapshot in (customer(f"Ann {number}") for number in range(200))}
    scene.headquarters.send(*sent.values())
    with scene.running(run):
        scene.wait_until_level()
        with scene.engine.begin() as connection:
            connection.execute(update(channel.customers).values(tax_number="drift"))
        stop = Event()

        def resync_again_and_again() -> None:
            resync(scene.settings, CHANNEL)
            # Without a pause each would have the lock again before live distribution looks.
            while not stop.wait(0.3):
                resync(scene.settings, CHANNEL)

        resyncing = Worker(lambda _: resync_again_and_again())
        # when
        for number in range(8):
            erased, *others = list(sent)[number * 7 : number * 7 + 7]
            new = customer(f"New {number}")
            news = [changed(sent[customer_id], last_name=f"Changed {number}") for customer_id in others]
            scene.headquarters.send(new, *news, erased)
            sent.update({snapshot.customer_id: snapshot for snapshot in (new, *news)})
            del sent[erased]
        scene.wait_until_level()
        stop.set()
        scene.wait(resyncing.ended, "the last resync")
        resyncing.check()
        scene.wait_until_level()
    # then
    assert scene.visible() == {
        snapshot.customer_id: (snapshot.account_number, snapshot.version, snapshot.customer.first_name)
        for snapshot in sent.values()
    }
    assert {row["tax_number"] for row in scene.rows(channel.customers)} == {""}
    assert scene.counts() == (len(sent), len(sent), 2 * len(sent))


@pytest.mark.parametrize(
    "failpoint", ["resync.after_slice", "resync.after_deferred", "resync.before_delete", "resync.after_delete"]
)
def test_killed_resync_leaves_the_channel_complete(scene: ChannelScene, failpoint: str) -> None:
    """Killed in the middle, every customer is readable; the next resync starts from the beginning and finishes."""
    # given
    sent = [customer(f"Ann {number}") for number in range(40)]
    scene.headquarters.send(*sent)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        surplus = {**scene.rows(channel.customers)[0], "customer_id": guid()}
        connection.execute(channel.customers.insert(), surplus)
        connection.execute(update(channel.customers).values(tax_number="drift"))
        deferred = channel.customers.c.customer_id == sent[0].customer_id
        connection.execute(update(channel.customers).where(deferred).values(version=9))
    # when
    die_at(scene, failpoint, RESYNC)
    # then
    kept = set() if failpoint == "resync.after_delete" else {surplus["customer_id"]}
    assert set(scene.visible()) == {snapshot.customer_id for snapshot in sent} | kept
    assert scene.counts()[1:] == (40, 80)
    # when
    assert resync(scene.settings, CHANNEL)
    # then
    assert set(scene.visible()) == {snapshot.customer_id for snapshot in sent}
    assert {(row["tax_number"], row["version"]) for row in scene.rows(channel.customers)} == {("", 1)}
    assert scene.rows(channel.resync_keys) == []


def test_second_resync_is_refused(scene: ChannelScene) -> None:
    """A second resync of the same channel is refused: each would delete the other's keys."""
    with resync_lock(scene.engine), pytest.raises(LockHeld):
        resync(scene.settings, CHANNEL)


def test_unreadable_snapshot_stops_the_resync_before_anything_is_deleted(scene: ChannelScene) -> None:
    """The last record of a customer cannot be read: the resync names it, and a surplus customer is still there."""
    # given
    broken, fine = customer("Broken"), customer("Fine")
    scene.headquarters.send(fine)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        surplus = {**scene.rows(channel.customers)[0], "customer_id": guid()}
        connection.execute(channel.customers.insert(), surplus)
    scene.headquarters.raw(CUSTOMERS.name, (broken.customer_id, b"rubbish"))
    # when
    with pytest.raises(SnapshotUnreadable, match="offset"):
        resync(scene.settings, CHANNEL)
    # then
    assert set(scene.visible()) == {fine.customer_id, surplus["customer_id"]}
    # when
    scene.headquarters.send(broken)
    assert resync(scene.settings, CHANNEL)
    # then
    assert set(scene.visible()) == {fine.customer_id, broken.customer_id}


def test_resync_stops_when_asked(scene: ChannelScene) -> None:
    """With `stop` set it ends soon, reports that it is unfinished, and keeps the positions."""
    # given
    scene.headquarters.send(customer("Ann"))
    stop = Event()
    began = time.monotonic()
    # when
    finished = resync(scene.settings, CHANNEL, lambda *_: stop.set(), stop)
    # then
    assert not finished
    assert time.monotonic() - began < 30
    assert scene.positions(scene.settings.topic(CUSTOMERS)) == {}
    assert scene.rows(channel.loading) == []


def test_migration_that_adds_a_field_causes_a_resync(scene: ChannelScene) -> None:
    """A channel that is upgraded after headquarters receives the values that it could not store."""
    # given
    sent = customer("Ann", known_as="Annie")
    scene.headquarters.send(sent)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        connection.execute(update(channel.customers).values(known_as=None))
        connection.execute(insert(channel.resync_requests).values(reason="a new field", requested_at=sent.updated_at))

    def values() -> tuple[list[str | None], list[str]]:
        with scene.engine.begin() as connection:
            known_as = connection.scalars(select(channel.customers.c.known_as)).all()
            return list(known_as), list(connection.scalars(select(channel.resync_requests.c.reason)))

    # when
    with scene.running(run):
        # then
        scene.wait(lambda: values() == (["Annie"], []), "the value of the new field")
