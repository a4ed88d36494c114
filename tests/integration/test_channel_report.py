"""The content of heartbeats, on both databases."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, update

from tenten.producers import create_customer
from tenten.producers.relay.channel_report import ChannelReport
from tenten.schemas.messages import Heartbeat, Loading
from tenten.schemas.tables.channel import customers, outbox, outbox_queue, positions, resync_keys, topics
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.loading import RESYNC, forget_loading, write_first_load, write_loading
from tests.producer_scene import HOUSTON, Store

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def report_of(store: Store, report: ChannelReport | None = None) -> Heartbeat:
    """The next content of a heartbeat; of a channel whose relay has just started, by default."""
    with store.channel.reading() as connection:
        return (report or ChannelReport(store.settings, HOUSTON)).read(connection)


def test_oldest_changes_are_those_that_headquarters_has_to_answer(store: Store) -> None:
    """Unsent changes are unsettled, too; a rejected change is neither: it waits for a clerk."""
    # given
    report = ChannelReport(store.settings, HOUSTON)
    empty = report_of(store, report)
    for number in range(4):
        create_customer(store.channel, last_name=f"Lee {number}")
    with store.channel.engine.begin() as connection:
        for number, row in enumerate(store.rows(outbox)):
            at = NOON + timedelta(minutes=number)
            connection.execute(update(outbox).where(outbox.c.sequence == row["sequence"]).values(created_at=at))
    ids = [row["id"] for row in store.rows(outbox)]
    # when, then
    assert (empty.oldest_unsent_at, empty.oldest_unsettled_at, empty.unsent, empty.unsettled) == (None, None, 0, 0)
    unsent = report_of(store, report)
    assert (unsent.oldest_unsent_at, unsent.oldest_unsettled_at, unsent.unsent, unsent.unsettled) == (NOON, NOON, 4, 4)
    with store.channel.engine.begin() as connection:
        connection.execute(delete(outbox_queue))
    store.reject(ids[0])
    store.reply(ids[1], "synchronized")
    sent = report_of(store, report)
    assert (sent.oldest_unsent_at, sent.unsent) == (None, 0)
    assert sent.oldest_unsettled_at == NOON + timedelta(minutes=2)
    assert report_of(store).unsettled == 2
    for event_id in ids[2:]:
        store.reply(event_id, "synchronized")
    assert report_of(store, report).oldest_unsettled_at is None


def test_change_that_becomes_visible_late_is_found(store: Store) -> None:
    """PostgreSQL commits rows out of order: a lower row that appears after higher ones were settled counts."""
    # given
    report = ChannelReport(store.settings, HOUSTON)
    for number in range(3):
        create_customer(store.channel, last_name=f"Lee {number}")
    first, *rest = store.rows(outbox)
    with store.channel.engine.begin() as connection:
        connection.execute(delete(outbox).where(outbox.c.sequence == first["sequence"]))
    for row in rest:
        store.reply(row["id"], "synchronized")
    assert report_of(store, report).oldest_unsettled_at is None
    # when
    with store.channel.engine.begin() as connection:
        connection.execute(insert(outbox).values(first))
    # then
    assert report_of(store, report).oldest_unsettled_at == first["created_at"]


def test_shared_account_numbers_and_kept_customers_are_problems(store: Store) -> None:
    """A number on two customers, and customers that the last resync has kept; without the number itself."""
    # given
    ids = [create_customer(store.channel, last_name=f"Lee {number}").customer_id for number in range(3)]
    store.synchronize(ids[0], "C-00000001")
    store.synchronize(ids[1], "C-00000002")
    assert report_of(store).problems == ()
    # when
    with store.channel.engine.begin() as connection:
        connection.execute(
            update(customers).where(customers.c.customer_id == ids[1]).values(account_number="C-00000001")
        )
        connection.execute(insert(resync_keys).values(customer_id=ids[2]))
    # then
    found = report_of(store).problems
    assert [problem.code for problem in found] == ["duplicate_account_number", "surplus_kept"]
    assert "share an account number" in found[0].text
    assert not any("C-00000001" in problem.text for problem in found)


def test_completeness_is_the_oldest_confirmation_of_a_partition(store: Store) -> None:
    """None until every partition of the topic was read to its end."""
    name = store.settings.topic(CUSTOMERS)
    assert report_of(store).complete_at is None
    with store.channel.engine.begin() as connection:
        connection.execute(insert(topics).values(topic=name, topic_id="1", partitions=2))
        position = {"topic": name, "topic_id": "1", "next_offset": 5}
        connection.execute(insert(positions).values(**position, partition=0, confirmed_at=NOON))
    assert report_of(store).complete_at is None
    with store.channel.engine.begin() as connection:
        later = NOON + timedelta(minutes=1)
        connection.execute(insert(positions).values(**position, partition=1, confirmed_at=later))
    assert report_of(store).complete_at == NOON


def test_customers_are_counted_again_only_after_a_change(store: Store) -> None:
    """Counting reads a whole index of the table: a quiet channel does not count."""
    # given
    report = ChannelReport(store.settings, HOUSTON)
    assert report_of(store, report).customers == 0
    # when the table changes without a trace in outbox and positions
    create_customer(store.channel, last_name="Lee")
    with store.channel.engine.begin() as connection:
        connection.execute(delete(outbox))
    # then
    assert report_of(store, report).customers == 0
    assert report_of(store).customers == 1


def test_load_of_all_customers_is_reported_until_it_has_ended(store: Store) -> None:
    """A resync counts for itself, and is forgotten when it was killed; of a first load the positions tell."""
    # given
    engine, name = store.channel.engine, store.settings.topic(CUSTOMERS)
    now = datetime.now(UTC)
    resync = Loading(kind=RESYNC, done=40, total=100, started_at=now - timedelta(minutes=5))
    assert report_of(store).loading is None
    # when, then
    with engine.begin() as connection:
        write_loading(connection, resync, now)
    assert report_of(store).loading == resync
    with engine.begin() as connection:
        write_loading(connection, resync, now - timedelta(minutes=3))
    assert report_of(store).loading is None
    # when
    with engine.begin() as connection:
        write_first_load(connection, 100, now)
        connection.execute(insert(topics).values(topic=name, topic_id="1", partitions=1))
        position = {"topic": name, "topic_id": "1", "partition": 0, "next_offset": 70, "confirmed_at": now}
        connection.execute(insert(positions).values(position))
    # then
    assert report_of(store).loading == Loading(kind="first_load", done=70, total=100, started_at=now)
    # when it is at the end
    with engine.begin() as connection:
        connection.execute(update(positions).values(next_offset=130, confirmed_at=now + timedelta(seconds=1)))
    # then
    assert report_of(store).loading is None
    with engine.begin() as connection:
        write_loading(connection, resync, now)
        forget_loading(connection)
    assert report_of(store).loading is None
