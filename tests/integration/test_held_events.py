"""Events that headquarters cannot judge yet end as if nothing had been held, whatever happens meanwhile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from tenten.avro.wire import WriterSchemas, contract, contracts, encode
from tenten.consumers.headquarters.customers import classify, held_queue
from tenten.consumers.headquarters.customers.held_decisions import reject_held
from tenten.consumers.headquarters.customers.held_events import HeldCustomers, Original
from tenten.consumers.headquarters.customers.held_touches import HeldTouches, touch_of_held
from tenten.consumers.headquarters.customers.numbering import Blocks
from tenten.consumers.headquarters.customers.outputs import BatchOutputs, created_outputs, replies, snapshots
from tenten.consumers.headquarters.customers.small_batch import SmallBatches, new_customers
from tenten.consumers.headquarters.customers.synchronize import Headquarters, synchronize
from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.consumers.headquarters.positions import Stream, StreamPositions
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.headquarters_views.held import HeldEventView, list_held
from tenten.rules.customer import changed_paths
from tenten.runtime.errors import NoSuchHeldEvent
from tenten.runtime.settings import Settings
from tenten.schemas.messages import CustomerEvent, CustomerState, EventKind, SupersededEvent, to_avro
from tenten.sql.engine import open_database
from tests.databases import create_from_template, drop_database
from tests.examples import examples
from tests.faults.avro import decode

NOW: Final = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HEADERS: Final = {schema.name: schema.header for schema in contracts()}
EMPTY: Final = """
    TRUNCATE customers, customer_addresses, customer_contacts, customer_audit, number_sequences, synchronization_log,
        positions, release_due, held_events, legal_entities, channels;
    INSERT INTO legal_entities VALUES ('usrt', 'US', 'USD', 'en-US', now(), '[]', '{}');
    INSERT INTO channels SELECT name, 'usrt', '[]', 'async', 2, 'UTC', '{}', now(), true
        FROM unnest(ARRAY['houston', 'dallas']) AS name;
    INSERT INTO number_sequences VALUES ('usrt', 'C-######', 1, true);
    INSERT INTO positions VALUES ('headquarters', 'topic', 0, 0);
"""
NOT_SENT: Final = Settings()
"""Touches are taken from the database here, and not sent."""

CAUSES: Final[dict[str, tuple[str, str]]] = {
    "unknown channel": (
        "DELETE FROM channels WHERE channel_id = 'houston'",
        "INSERT INTO channels VALUES ('houston', 'usrt', '[]', 'async', 2, 'UTC', '{}', now(), true)",
    ),
    "unknown legal entity": (
        "DELETE FROM legal_entities",
        "INSERT INTO legal_entities VALUES ('usrt', 'US', 'USD', 'en-US', now(), '[]', '{}')",
    ),
    "no sequence": (
        "DELETE FROM number_sequences",
        "INSERT INTO number_sequences SELECT 'usrt', 'C-######', 1 + count(account_number), true FROM customers",
    ),
    "used up": (
        "UPDATE number_sequences SET format = 'C-#', next = 10",
        "UPDATE number_sequences SET format = 'C-######'",
    ),
}
"""The statements that begin and end a cause for which headquarters cannot judge."""

UNKNOWN_CHANNEL: Final = CAUSES["unknown channel"]


class Worker:
    """The customers worker on an empty database, without Kafka: batches go in, replies come out."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_database(url)
        self.connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.small_batches = SmallBatches(self.engine)
        self.empty()

    def empty(self) -> None:
        """Start again."""
        self.connection.execute(EMPTY)
        self.offset = 0
        self.replies: dict[str, dict[str, Any]] = {}
        """By event id: the reply that counts in its store."""
        self.start()

    def start(self, statement: str = "") -> None:
        """Start after this change of the database, of which no notification tells."""
        self.connection.execute(statement.encode() or b"SELECT 1")
        held = HeldCustomers(WriterSchemas())
        held.load(self.engine)
        self.registry = ChannelRegistry(self.engine)
        self.registry.refresh()
        self.at = Headquarters(engine=self.engine, blocks=Blocks(self.engine), channels=self.registry.known, held=held)

    def process(self, events: Sequence[CustomerEvent], *, crash: bool = False) -> None:
        """Process a batch. After a crash between the commits the batch is read again, and no reply was sent."""
        start, self.offset = self.offset, self.offset + len(events)
        if crash:
            self._write(events, start)
            self.start()
        outputs, answered = self._write(events, start)
        self.at.held.delete_answered(self.engine, answered)
        for output in outputs.replies:
            self._settle(decode("Reply", output.value or b""))

    def _write(self, events: Sequence[CustomerEvent], start: int) -> tuple[BatchOutputs, list[int]]:
        values: list[bytes | None] = [encode(contract("CustomerEvent"), to_avro(event)) for event in events]
        offsets = list(range(start, start + len(events)))
        positions = RecordPositions(topic="async-customers", partitions=[0] * len(events), offsets=offsets)
        decoded = classify.decode_small([event.customer_id.encode() for event in events], values, WriterSchemas())
        assert decoded is not None
        reached = StreamPositions(
            stream=Stream(consumer_group="headquarters", topic_id="topic"),
            starts={0: start},
            next_offsets={0: start + len(events)},
        )
        new = new_customers(decoded, values, positions, WriterSchemas(), self.at.channels)
        if new is not None and not self.at.held.among(event.customer_id for event in events):
            outputs = self.small_batches.create(new, positions.topic, reached, NOW, HEADERS)
            if outputs is not None:
                return outputs, []
        done = synchronize(
            self.at,
            classify.individually(decoded, values, positions),
            reached,
            now=NOW,
            encode=partial(created_outputs, values=values, headers=HEADERS),
            originals=lambda row: Original(values[row] or b"", [("id", b"x")]),
        )
        answered = [held_id for transaction in done for held_id in transaction.answered]
        return BatchOutputs(snapshots(done, HEADERS), replies(done, HEADERS)), answered

    def _settle(self, reply: dict[str, Any]) -> None:
        """Keep the reply that counts, as a store does."""
        earlier = self.replies.get(reply["event_id"])
        if (
            earlier is None
            or (earlier["outcome"] == "HELD" and reply["outcome"] != "HELD")
            or (earlier["outcome"] in ("HELD", "REJECTED") and reply["judgement"] > earlier["judgement"])
        ):
            self.replies[reply["event_id"]] = reply

    def touch(self, *, crash: bool = False) -> None:
        """Touch the held customers whose cause is gone, until there are none."""
        touches = HeldTouches(
            settings=NOT_SENT, engine=self.engine, registry=self.registry, held=self.at.held, headers={}
        )
        for _ in range(10):
            self.connection.execute("UPDATE held_events SET touched_at = NULL")
            due = touches.due()
            if not due:
                return
            self.process([touch_of_held(customer_id) for customer_id in due], crash=crash)
        raise AssertionError("held events are touched in vain")

    def customers(self) -> dict[str, dict[str, Any]]:
        """By customer id: every customer without account number and times."""
        rows = self.connection.execute(
            "SELECT customer_id::text, to_jsonb(c) - 'account_number' - 'updated_at' - 'erased_at', "
            "erased_at IS NOT NULL FROM customers AS c"
        ).fetchall()
        return {
            customer_id: {"erased": True} if erased else {"erased": False, **columns}
            for customer_id, columns, erased in rows
        }

    def query(self, statement: str, *values: object) -> list[Any]:
        """The first column of every row."""
        return [row[0] for row in self.connection.execute(statement.encode(), values).fetchall()]

    def close(self) -> None:
        """Close all connections."""
        self.small_batches.close()
        self.connection.close()
        self.engine.dispose()


@pytest.fixture(scope="module")
def worker(postgresql: str) -> Iterator[Worker]:
    """One for all tests of the module."""
    name = f"held_{uuid4().hex}"
    made = Worker(create_from_template(postgresql, name, "headquarters"))
    yield made
    made.close()
    drop_database(postgresql, name)


@dataclass(slots=True, kw_only=True)
class Store:
    """A store that receives no reply until the end, so each event supersedes all earlier ones of its customer."""

    channel_id: str = "houston"
    supersedes: bool = True
    states: dict[int, CustomerState] = field(default_factory=dict)
    sent: dict[int, list[CustomerEvent]] = field(default_factory=dict)
    count: int = 0

    def event(self, customer: int, kind: str) -> CustomerEvent:
        """The next event of a customer: `create`, `edit`, `wrong` (breaks a rule), `correct`, `repeat`, `erase`."""
        earlier = self.sent.setdefault(customer, [])
        if kind == "repeat" and earlier:
            return earlier[self.count % len(earlier)]
        self.count += 1
        before = self.states.get(customer)
        made = self._made(customer, kind, before)
        earlier.append(made)
        return made

    def _made(self, customer: int, kind: str, before: CustomerState | None) -> CustomerEvent:
        fields: dict[str, Any] = {"title": f"t{self.count}"}
        if kind == "wrong":
            fields = {"first_name": "", "last_name": ""}
        elif kind == "correct":
            fields = {"first_name": "Ann", "title": f"t{self.count}"}
        state = replace(before or CustomerState(legal_entity="usrt", first_name="Ann"), **fields)
        event = CustomerEvent(
            customer_id=str(UUID(int=customer + 1, version=4)),
            event_id=str(UUID(int=10**6 * len(self.channel_id) + 1000 * customer + self.count, version=4)),
            channel_id=self.channel_id,
            kind=EventKind.EDITED if before else EventKind.CREATED,
            occurred_at=NOW + timedelta(seconds=self.count),
            changed=changed_paths(before, state),
            supersedes=tuple(
                SupersededEvent(event_id=old.event_id, changed=old.changed)
                for old in self.sent[customer]
                if self.supersedes and old.customer is not None
            ),
            customer=state,
        )
        if kind == "erase":
            return replace(event, kind=EventKind.ERASED, changed=(), supersedes=(), customer=None)
        self.states[customer] = state
        return event


KINDS: Final = ("edit", "edit", "edit", "wrong", "correct", "repeat", "erase")


@st.composite
def histories(draw: st.DrawFn) -> list[list[CustomerEvent]]:
    """Batches of events of three customers of one store."""
    store = Store(supersedes=draw(st.booleans()))
    kinds = draw(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KINDS)), min_size=1, max_size=14))
    batches: list[list[CustomerEvent]] = [[]]
    for customer, kind in kinds:
        batches[-1].append(store.event(customer, kind))
        if draw(st.booleans()):
            batches.append([])
    return [batch for batch in batches if batch]


def outcomes(worker: Worker, customers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By event id: the outcome and the reasons in the store, of customers that are not erased."""
    return {
        event_id: (reply["outcome"], reply["reasons"])
        for event_id, reply in worker.replies.items()
        if reply["channel_id"] != "headquarters" and not customers.get(reply["customer_id"], {}).get("erased")
    }


@given(
    history=histories(),
    cause=st.sampled_from(sorted(CAUSES)),
    span=st.tuples(st.integers(0, 5), st.integers(1, 12)),
    crash=st.booleans(),
)
@examples(60)
def test_history_with_held_events_ends_as_if_nothing_had_been_held(
    worker: Worker, history: list[list[CustomerEvent]], cause: str, span: tuple[int, int], crash: bool
) -> None:
    """Customers, versions and outcomes are those of a headquarters that could judge every event at once."""
    # given
    begins, ends = span[0], sum(span)
    worker.empty()
    for batch in history:
        worker.process(batch)
    expected = worker.customers()
    expected_outcomes = outcomes(worker, expected)

    # when
    worker.empty()
    begin, end = CAUSES[cause]
    for number, batch in enumerate(history):
        if number == begins:
            worker.start(begin)
        if number == ends:
            worker.start(end)
            worker.touch(crash=crash)
        worker.process(batch, crash=crash)
    worker.start(end if begins < len(history) <= ends else "")
    worker.touch(crash=crash)

    # then
    assert worker.customers() == expected
    assert outcomes(worker, expected) == expected_outcomes
    assert worker.query("SELECT event_id FROM held_events") == []
    held = "SELECT event_id FROM synchronization_log WHERE outcome = 'held'"
    assert worker.query(held) == []
    numbers = worker.query("SELECT account_number FROM customers WHERE account_number IS NOT NULL")
    assert len(set(numbers)) == len(numbers)


def test_event_that_is_not_stored_is_judged_when_its_store_sends_it_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit of a channel an event is answered `held`, and nothing is lost."""
    # given
    monkeypatch.setattr(held_queue, "CHANNEL_EVENTS_MAX", 1)
    worker.empty()
    store = Store()
    first, second = store.event(0, "create"), store.event(1, "create")
    worker.start(UNKNOWN_CHANNEL[0])
    worker.process([first])
    worker.process([second])
    assert [worker.replies[event.event_id]["outcome"] for event in (first, second)] == ["HELD", "HELD"]
    assert worker.query("SELECT count(*) FROM held_events") == [1]

    # when
    worker.start(UNKNOWN_CHANNEL[1])
    worker.touch()
    worker.process([second])

    # then
    assert [worker.replies[event.event_id]["outcome"] for event in (first, second)] == ["SYNCHRONIZED", "SYNCHRONIZED"]
    assert [worker.replies[event.event_id]["judgement"] for event in (first, second)] == [2, 2]


def test_erasure_deletes_held_events(worker: Worker) -> None:
    """Their content is deleted at once, and each is answered `erased`."""
    # given
    worker.empty()
    store, other = Store(), Store(channel_id="dallas")
    create, edit = store.event(0, "create"), store.event(0, "edit")
    worker.start(UNKNOWN_CHANNEL[0])
    worker.process([create, edit])

    # when
    worker.process([other.event(0, "erase")])

    # then
    assert {worker.replies[event.event_id]["outcome"] for event in (create, edit)} == {"ERASED"}
    assert worker.query("SELECT event_id FROM held_events") == []


@pytest.mark.parametrize("channel", ["houston", "dallas"])
def test_event_with_the_id_of_a_held_event_is_rejected(worker: Worker, channel: str) -> None:
    """The held event is judged when its cause is gone, as if there had been no other."""
    # given
    worker.empty()
    held = Store().event(0, "create")
    assert held.customer is not None
    other = replace(held, channel_id=channel, customer=replace(held.customer, first_name="Bob"))
    worker.start(UNKNOWN_CHANNEL[0])
    worker.process([held])

    # when
    worker.process([other, held], crash=True)
    rejected = worker.replies[held.event_id]
    worker.start(UNKNOWN_CHANNEL[1])
    worker.touch()

    # then
    assert (rejected["outcome"], rejected["reasons"][0]["code"]) == ("REJECTED", "duplicate")
    assert [customer["first_name"] for customer in worker.customers().values()] == ["Ann"]
    assert worker.replies[held.event_id]["outcome"] == "SYNCHRONIZED"
    assert worker.query("SELECT conflicts FROM synchronization_log WHERE event_id = %s", held.event_id) == [2]


def test_event_whose_content_is_not_known_is_repeated_by_its_own_channel_only(worker: Worker) -> None:
    """The last release logged events without their content."""
    # given
    worker.empty()
    logged = Store().event(0, "create")
    assert logged.customer is not None
    other = replace(logged, customer=replace(logged.customer, first_name="Bob"))
    worker.process([logged])
    worker.connection.execute("UPDATE synchronization_log SET content_hash = NULL")

    # when
    worker.process([other, replace(other, channel_id="dallas")])

    # then
    counts = "SELECT (repeats, conflicts)::text FROM synchronization_log WHERE event_id = %s"
    assert worker.query(counts, logged.event_id) == ["(1,1)"]
    assert worker.query("SELECT first_name FROM customers") == ["Ann"]


def test_correction_of_a_wrong_legal_entity_does_not_wait_behind_the_held_event(worker: Worker) -> None:
    """It supersedes the held event, so it suffices alone."""
    # given
    worker.empty()
    store = Store()
    create = store.event(0, "create")
    assert create.customer is not None
    wrong = replace(create, customer=replace(create.customer, legal_entity="frrt"))
    store.sent[0] = [wrong]

    # when
    worker.process([wrong])
    worker.process([correction := store.event(0, "edit")])

    # then
    assert worker.replies[wrong.event_id]["outcome"] == "SUPERSEDED"
    assert worker.replies[correction.event_id]["outcome"] == "SYNCHRONIZED"
    assert worker.query("SELECT event_id FROM held_events") == []


def test_event_that_does_not_supersede_the_held_one_waits_behind_it(worker: Worker) -> None:
    """It could be judged alone, but not before the earlier event of the same store and customer."""
    # given
    worker.empty()
    store = Store(supersedes=False)
    create = store.event(0, "create")
    assert create.customer is not None
    held = replace(create, customer=replace(create.customer, legal_entity="derm"))
    worker.process([held])

    # when
    worker.process([later := store.event(0, "edit")])

    # then
    waiting = worker.replies[later.event_id]
    assert (waiting["outcome"], waiting["reasons"][0]["code"]) == ("HELD", "unknown_legal_entity")
    # when
    worker.start("INSERT INTO legal_entities VALUES ('derm', 'DE', 'EUR', 'de-DE', now(), '[]', '{}')")
    worker.touch()
    # then
    assert worker.replies[held.event_id]["outcome"] == "REJECTED"
    assert worker.replies[later.event_id]["outcome"] == "SYNCHRONIZED"


def test_create_of_another_channel_is_not_held_back(worker: Worker) -> None:
    """The held events of an unknown channel are merged later, like those of a store that was offline."""
    # given
    worker.empty()
    houston, dallas = Store(), Store(channel_id="dallas")
    held = houston.event(0, "create")
    worker.start(UNKNOWN_CHANNEL[0])
    worker.process([held])

    # when
    created = dallas.event(0, "create")
    worker.process([created])
    assert worker.replies[created.event_id]["outcome"] == "SYNCHRONIZED"
    worker.start(UNKNOWN_CHANNEL[1])
    worker.touch()

    # then
    assert worker.replies[held.event_id]["outcome"] == "SYNCHRONIZED"
    assert worker.query("SELECT account_number FROM customers") == ["C-000001"]


def test_touch_in_the_future_does_not_delay_the_next_one(worker: Worker) -> None:
    """Headquarters' clock was an hour ahead when it touched the customer in vain, and is right again."""
    # given
    worker.empty()
    held = Store().event(0, "create")
    worker.start(UNKNOWN_CHANNEL[0])
    worker.process([held])
    worker.start(UNKNOWN_CHANNEL[1])
    touches = HeldTouches(
        settings=NOT_SENT, engine=worker.engine, registry=worker.registry, held=worker.at.held, headers={}
    )

    # when, then
    assert touches.due() == [held.customer_id]
    assert touches.due() == []
    worker.connection.execute("UPDATE held_events SET touched_at = touched_at + interval '1 hour'")
    assert touches.due() == [held.customer_id]


@pytest.mark.parametrize("crash", [False, True])
def test_held_event_that_a_person_rejects_is_answered_once_and_for_good(worker: Worker, crash: bool) -> None:
    """Its cause does not matter any more; a later event of the same store and customer is judged alone."""
    # given
    worker.empty()
    store = Store(supersedes=False)
    held = [in_unknown_entity(store.event(customer, "create")) for customer in (0, 1)]
    later = store.event(1, "edit")
    worker.process([*held, later])
    listed = [(event.event_id, event.code, event.is_to_be_rejected) for event in held_of(worker)]
    assert listed == [(event.event_id, "unknown_legal_entity", False) for event in (*held, later)]

    # when
    ids = [event.event_id for event in held]
    reject_held(worker.engine, ids, "The company was sold", "Ann Lee")
    assert [event.is_to_be_rejected for event in held_of(worker)] == [True, True, False]
    worker.touch(crash=crash)
    replies_before = dict(worker.replies)
    worker.process(held)

    # then
    text = "Headquarters rejected this change (Ann Lee): The company was sold"
    for reply in (worker.replies[event_id] for event_id in ids):
        assert reply == replies_before[reply["event_id"]]
        assert (reply["outcome"], reply["judgement"]) == ("REJECTED", 2)
        assert [(reason["code"], reason["text"]) for reason in reply["reasons"]] == [("rejected_by_headquarters", text)]
    assert worker.replies[later.event_id]["outcome"] == "SYNCHRONIZED"
    assert worker.query("SELECT event_id FROM held_events") == []
    with pytest.raises(NoSuchHeldEvent):
        reject_held(worker.engine, ids, "Too late", None)


def in_unknown_entity(event: CustomerEvent) -> CustomerEvent:
    """The event of a customer whose legal entity does not exist."""
    assert event.customer is not None
    return replace(event, customer=replace(event.customer, legal_entity="frrt"))


def held_of(worker: Worker) -> list[HeldEventView]:
    """The held events, as the command shows them."""
    with worker.engine.begin() as connection:
        return list_held(connection, channel=None, code=None, older_than_seconds=0, events_max=10)


def test_event_that_the_database_rejects_is_rejected_among_held_ones(worker: Worker) -> None:
    """The database does not accept the last of three held events: only this one is rejected."""
    # given
    worker.empty()
    store = Store(supersedes=False)
    events = [store.event(0, kind) for kind in ("create", "edit", "edit")]
    worker.start(UNKNOWN_CHANNEL[0])
    worker.process(events)
    worker.connection.execute("ALTER TABLE customers ADD CONSTRAINT no CHECK (title <> 't3')")

    # when
    try:
        worker.start(UNKNOWN_CHANNEL[1])
        worker.touch()
    finally:
        worker.connection.execute("ALTER TABLE customers DROP CONSTRAINT no")

    # then
    found = [worker.replies[event.event_id]["outcome"] for event in events]
    assert found == ["SYNCHRONIZED", "SYNCHRONIZED", "REJECTED"]
    assert worker.query("SELECT event_id FROM held_events") == []
