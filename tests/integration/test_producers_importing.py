"""Import from files into a channel, on PostgreSQL and SQLite."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from tenten.producers import create_customer, edit_customer, import_customers, open_channel, outbox, search_customers
from tenten.producers.importing.customers import LINES_A_SLICE
from tenten.runtime.errors import ImportRejected
from tenten.schemas.messages import EventKind
from tenten.schemas.tables import channel
from tests.forked import run_to_failpoint
from tests.producer_scene import Store, set_store

HEADER = "CustomerKey,Prefix,FirstName,LastName,BirthDate,EmailAddress"
PEOPLE = (
    "11000,MR.,JON,YANG,04/08/1900,jon24@adventure-works.com",
    "11001,MRS.,RENÉE,GARCÍA,05/14/1965,renée3@adventure-works.com",
    '11002,MS.,"ANN\nMARIE",ZHU,02/15/1968,ann@adventure-works.com',
)


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases."""
    url = (
        request.getfixturevalue("new_database")("channel") if request.param == "postgresql" else "sqlite:///houston.db"
    )
    with set_store(tmp_path, url) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three people in a file as another system writes it: Latin-1, one name on two lines."""
    return write(tmp_path / "customers.csv", [HEADER, *PEOPLE], "latin-1")


def write(path: Path, lines: Sequence[str], encoding: str = "utf-8") -> Path:
    """A file of these lines."""
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def test_each_line_becomes_a_pending_customer(store: Store, file: Path) -> None:
    """Columns with common names are understood, others are reported as unused."""
    # when
    result = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert (result.read, result.created, result.edited, result.repeated, result.refused) == (3, 3, 0, 0, ())
    assert (result.key, result.unused) == ("CustomerKey", ("BirthDate",))
    [renee] = search_customers(store.channel, "garcía")
    assert (renee.state.title, renee.state.first_name, renee.status) == ("MRS.", "RENÉE", "pending")
    assert [one.value for one in renee.state.contacts] == ["renée3@adventure-works.com"]
    assert renee.state.affiliations == ("friends",)
    assert {event.kind for event in store.events()} == {EventKind.CREATED}
    assert {UUID(event.event_id).version for event in store.events()} == {5}


def test_the_same_file_twice_makes_no_second_customer(store: Store, file: Path) -> None:
    """The second time every line is a repeat, and nothing is written."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    before = store.counts()
    # when
    again = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert (again.read, again.created, again.repeated) == (3, 0, 3)
    assert store.counts() == before


def test_the_same_file_again_reverts_no_later_edit(store: Store, file: Path) -> None:
    """What a clerk has changed since stays, however often the old file comes."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    [jon] = search_customers(store.channel, "jon yang")
    edit_customer(store.channel, jon.customer_id, last_name="Young")
    # when
    again = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert again.repeated == 3
    assert [one.state.last_name for one in search_customers(store.channel, "jon")] == ["Young"]


def test_a_changed_line_edits_only_what_it_says_differently(store: Store, file: Path, tmp_path: Path) -> None:
    """The key finds the customer; other fields, and what an empty cell says nothing about, stay."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    [jon] = search_customers(store.channel, "jon yang")
    edit_customer(store.channel, jon.customer_id, middle_name="Q")
    # when
    later = write(tmp_path / "later.csv", [HEADER, "11000,,JON,YOUNG,,jon@adventure-works.com"])
    result = import_customers(store.channel, later)
    # then
    assert (result.created, result.edited, result.repeated) == (0, 1, 0)
    [seen] = search_customers(store.channel, "jon")
    state = seen.state
    assert (state.title, state.middle_name, state.last_name) == ("MR.", "Q", "YOUNG")
    assert [one.value for one in state.contacts] == ["jon@adventure-works.com"]
    assert store.events()[-1].changed == ("last_name", f"contacts/{state.primary_email}")
    assert len(store.events()[-1].supersedes) == 2


def test_a_line_that_says_what_is_there_already_stays_a_repeat(store: Store, tmp_path: Path) -> None:
    """Even when the customer is changed afterwards, the line is old news."""
    # given
    create = write(tmp_path / "one.csv", [HEADER, "1,,Ada,Lovelace,,"])
    same = write(tmp_path / "two.csv", [HEADER, "1,,Ada,King,,"])
    import_customers(store.channel, create)
    [ada] = search_customers(store.channel, "ada")
    edit_customer(store.channel, ada.customer_id, last_name="King")
    assert import_customers(store.channel, same).repeated == 1
    edit_customer(store.channel, ada.customer_id, last_name="Byron")
    # when
    again = import_customers(store.channel, same)
    # then
    assert again.repeated == 1
    assert [one.state.last_name for one in search_customers(store.channel, "ada")] == ["Byron"]


def test_lines_without_a_key_are_told_apart_by_what_they_say(store: Store, tmp_path: Path) -> None:
    """The same line is the same customer, another line is another one."""
    # given
    lines = ["FirstName,LastName", "Ada,Lovelace", "Ada,Lovelace", "Ada,Byron", " Ada ,Lovelace"]
    # when
    result = import_customers(store.channel, write(tmp_path / "people.csv", lines))
    # then
    assert (result.created, result.repeated, result.key) == (2, 2, None)


def test_a_key_that_comes_twice_edits_its_customer(store: Store, tmp_path: Path) -> None:
    """Within one file the later line takes the earlier along, as any later edit does."""
    # given
    lines = ["no,First Name,last_name", "7,Ada,Lovelace", "8,Grace,Hopper", "7,Ada,King"]
    # when
    result = import_customers(store.channel, write(tmp_path / "people.csv", lines), key="no")
    # then
    assert (result.created, result.edited) == (2, 1)
    created, _, edited = store.events()
    assert (edited.kind, edited.changed) == (EventKind.EDITED, ("last_name",))
    assert [one.event_id for one in edited.supersedes] == [created.event_id]


def test_refused_lines_are_named_and_the_rest_is_imported(store: Store, tmp_path: Path) -> None:
    """Every reason of every refused line, with the number the line has in the file."""
    # given
    lines = [
        "FirstName,LastName,Phone,Email,Type",
        '"Ada\nAugusta",Lovelace,,,',
        ",,12,nowhere,",
        "Grace,Hopper,713 555 0123,,",
        "too,few",
        '"broken"quote,x,,,',
        "Alan,Turing,,,robot",
        f"{'x' * 101},Babbage,,,",
    ]
    # when
    result = import_customers(store.channel, write(tmp_path / "people.csv", lines), mapping={"Type": "customer_type"})
    # then
    assert (result.read, result.created) == (7, 2)
    assert [(one.line, [reason.code for reason in one.reasons]) for one in result.refused] == [
        (4, ["required", "invalid_email", "invalid_phone"]),
        (6, ["unreadable"]),
        (7, ["unreadable"]),
        (8, ["unknown_choice"]),
        (9, ["too_long"]),
    ]


def test_a_wrong_encoding_is_said_before_anything_is_written(store: Store, file: Path) -> None:
    """The message names the line and what to try; no customer gets a mutilated name."""
    with pytest.raises(ImportRejected, match=r"line 3 of .* --encoding latin-1"):
        import_customers(store.channel, file)
    assert store.counts()["customers"] == 0


def test_json_lines_are_imported_like_a_table(store: Store, tmp_path: Path) -> None:
    """A member is a column; a later line may bring one that no earlier line had."""
    # given
    lines = [
        {"first_name": "Ada", "last_name": "Lovelace", "PostalCode": 77001, "score": 1.50},
        {"first_name": "Grace", "last_name": None, "phone": "713 555 0123", "nested": {"a": 1}},
    ]
    file = write(
        tmp_path / "people.jsonl", [json.dumps(lines[0]), "", "{broken", json.dumps(lines[1]), '{"phone": []}']
    )
    # when
    result = import_customers(store.channel, file, mapping={"score": "attributes/score"})
    # then
    assert (result.read, result.created, [one.line for one in result.refused]) == (4, 2, [3, 5])
    assert result.unused == ("nested",)
    [ada], [grace] = search_customers(store.channel, "ada"), search_customers(store.channel, "grace")
    assert [one.postal_code for one in ada.state.addresses] == ["77001"]
    assert [(one.name, one.text) for one in ada.state.attributes] == [("score", "1.5")]
    assert [one.value for one in grace.state.contacts] == ["+17135550123"]


def test_progress_is_told_slice_by_slice_to_the_end(store: Store, tmp_path: Path) -> None:
    """However long the file, what is done is known, and the whole of it arrives."""
    # given
    count = 2 * LINES_A_SLICE + 10
    lines = ["FirstName,LastName,Email", *(f"Ann,Nr {number},ann{number}@example.com" for number in range(count))]
    told: list[tuple[int, float]] = []
    # when
    result = import_customers(
        store.channel,
        write(tmp_path / "people.csv", lines),
        progress=lambda read, share: told.append((read, share)),
    )
    # then
    assert [read for read, _ in told] == [LINES_A_SLICE, 2 * LINES_A_SLICE, count]
    assert told[-1][1] == 1.0
    assert result.created == count == store.counts()["customers"] == store.counts()["outbox"]


def test_two_imports_of_one_file_at_once_make_each_customer_once(store: Store, tmp_path: Path) -> None:
    """Whoever comes second finds repeats."""
    # given
    count = 2 * LINES_A_SLICE
    file = write(tmp_path / "people.csv", ["FirstName,LastName", *(f"Ann,Nr {number}" for number in range(count))])
    # when
    with ThreadPoolExecutor(2) as clerks:
        results = [one.result() for one in [clerks.submit(import_customers, store.channel, file) for _ in range(2)]]
    # then
    assert sum(one.created for one in results) == count
    assert sum(one.repeated for one in results) == count
    assert store.counts()["outbox"] == count


def test_a_killed_import_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    """Slices that were written are repeats, the others are imported; none is half there."""
    # given
    count = 2 * LINES_A_SLICE
    file = write(tmp_path / "people.csv", ["FirstName,LastName", *(f"Ann,Nr {number}" for number in range(count))])
    code = (
        "from pathlib import Path; from tenten.settings import load_settings; from tenten import producers; "
        f"houston = producers.open_channel(load_settings(Path({str(store.toml)!r})), 'houston'); "
        f"producers.import_customers(houston, Path({str(file)!r}))"
    )
    run_to_failpoint(code, "customers.before_commit@2", store.toml.parent)
    assert store.counts()["customers"] == LINES_A_SLICE
    # when
    result = import_customers(store.channel, file)
    # then
    assert (result.repeated, result.created) == (LINES_A_SLICE, LINES_A_SLICE)
    assert store.counts()["outbox"] == count


def test_another_channel_of_the_legal_entity_gives_the_same_ids(store: Store, file: Path) -> None:
    """Two stores that import the same file speak of the same customers, and of the same events."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    # when
    with open_channel(store.settings, "dallas") as dallas:
        import_customers(dallas, file, encoding="latin-1")
        with dallas.reading() as connection:
            there = outbox.known_events(connection, [event.event_id for event in store.events()])
            customers = {event.customer_id for event in store.events()}
            found = outbox.summaries(connection, customers)
    # then
    assert there == {event.event_id for event in store.events()}
    assert found.keys() == customers


def test_an_erased_customer_is_not_brought_back_by_its_file(store: Store, file: Path) -> None:
    """The rows of the outbox remember the line, even when the customer is gone."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    with store.channel.engine.begin() as connection:
        connection.execute(delete(channel.customers))
        connection.execute(update(channel.outbox).values(settled_at=datetime.now(UTC), outcome="erased"))
    # when
    again = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert again.repeated == 3
    assert store.counts()["customers"] == 0


def test_a_file_is_a_repeat_even_after_its_events_were_pruned(store: Store, file: Path) -> None:
    """Pruning takes the personal data out of old rows, and keeps the ids of imported ones."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    byhand = create_customer(store.channel, last_name="Lovelace")
    for event in store.events():
        store.synchronize(event.customer_id, f"C-{event.customer_id[:8]}")
    now = datetime.now(UTC)
    # when
    with store.channel.engine.begin() as connection:
        outbox.prune(connection, outbox.settled_before(connection, now + timedelta(days=1), 1000))
        assert outbox.settled_before(connection, now + timedelta(days=1), 1000) == []
    # then
    rows = store.rows(channel.outbox)
    assert [row["payload"] for row in rows] == [b"", b"", b""]
    assert byhand.customer_id not in {row["aggregateid"] for row in rows}
    assert import_customers(store.channel, file, encoding="latin-1").repeated == 3
