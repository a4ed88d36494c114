"""Import from files into a channel, on PostgreSQL and SQLite."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from tenten.producers import create_customer, edit_customer, import_customers, open_channel, search_customers
from tenten.producers.importing.customers import SLICE_LINES
from tenten.producers.outbox import retention
from tenten.producers.outbox.customer_events import summaries
from tenten.producers.outbox.table import recorded_ids
from tenten.runtime.errors import ImportRejected
from tenten.schemas.messages import EventKind
from tenten.schemas.tables import channel
from tests.forked import run_to_failpoint
from tests.producer_scene import Store

HEADER = "CustomerKey,Prefix,FirstName,LastName,BirthDate,EmailAddress"
PEOPLE = (
    "11000,MR.,JON,YANG,04/08/1900,jon24@adventure-works.com",
    "11001,MRS.,RENÉE,GARCÍA,05/14/1965,renée3@adventure-works.com",
    '11002,MS.,"ANN\nMARIE",ZHU,02/15/1968,ann@adventure-works.com',
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of another system with three people: Latin-1, one name with a line break."""
    return write(tmp_path / "customers.csv", [HEADER, *PEOPLE], "latin-1")


def write(path: Path, lines: Sequence[str], encoding: str = "utf-8") -> Path:
    """Write a file with these lines."""
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def test_each_line_becomes_a_pending_customer(store: Store, file: Path) -> None:
    """Columns with common names are recognised, others are reported as unused."""
    # when
    result = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert (result.read, result.created, result.edited, result.repeated, result.rejected) == (3, 3, 0, 0, ())
    assert (result.key, result.unused) == ("CustomerKey", ("BirthDate",))
    [renee] = search_customers(store.channel, "garcía")
    assert (renee.state.title, renee.state.first_name, renee.status) == ("MRS.", "RENÉE", "pending")
    assert [contact.value for contact in renee.state.contacts] == ["renée3@adventure-works.com"]
    assert renee.state.affiliations == ("friends",)
    assert {event.kind for event in store.events()} == {EventKind.CREATED}
    assert {UUID(event.event_id).version for event in store.events()} == {5}


def test_importing_a_file_twice_creates_no_second_customer(store: Store, file: Path) -> None:
    """The second time, every line is a repeat, and nothing is written."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    before = store.counts()
    # when
    again = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert (again.read, again.created, again.repeated) == (3, 0, 3)
    assert store.counts() == before


def test_importing_a_file_again_reverts_no_later_edit(store: Store, file: Path) -> None:
    """A clerk's later changes stay, however often the old file is imported."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    [jon] = search_customers(store.channel, "jon yang")
    edit_customer(store.channel, jon.customer_id, last_name="Young")
    # when
    again = import_customers(store.channel, file, encoding="latin-1")
    # then
    assert again.repeated == 3
    assert [view.state.last_name for view in search_customers(store.channel, "jon")] == ["Young"]


def test_changed_line_edits_only_its_different_fields(store: Store, file: Path, tmp_path: Path) -> None:
    """The key identifies the customer; other fields, and the fields of empty cells, are unchanged."""
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
    assert [contact.value for contact in state.contacts] == ["jon@adventure-works.com"]
    assert store.events()[-1].changed == ("last_name", f"contacts/{state.primary_email}")
    assert len(store.events()[-1].supersedes) == 2


def test_line_without_changes_stays_a_repeat(store: Store, tmp_path: Path) -> None:
    """A line that changed nothing is a repeat, even after later changes of the customer."""
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
    assert [view.state.last_name for view in search_customers(store.channel, "ada")] == ["Byron"]


def test_lines_without_a_key_are_identified_by_their_content(store: Store, tmp_path: Path) -> None:
    """Equal lines are one customer, different lines are different customers."""
    # given
    lines = ["FirstName,LastName", "Ada,Lovelace", "Ada,Lovelace", "Ada,Byron", " Ada ,Lovelace"]
    # when
    result = import_customers(store.channel, write(tmp_path / "people.csv", lines))
    # then
    assert (result.created, result.repeated, result.key) == (2, 2, None)


def test_repeated_key_edits_its_customer(store: Store, tmp_path: Path) -> None:
    """Within one file the later line supersedes the earlier one, as any later edit does."""
    # given
    lines = ["no,First Name,last_name", "7,Ada,Lovelace", "8,Grace,Hopper", "7,Ada,King"]
    # when
    result = import_customers(store.channel, write(tmp_path / "people.csv", lines), key="no")
    # then
    assert (result.created, result.edited) == (2, 1)
    created, _, edited = store.events()
    assert (edited.kind, edited.changed) == (EventKind.EDITED, ("last_name",))
    assert [superseded.event_id for superseded in edited.supersedes] == [created.event_id]


def test_rejected_lines_are_reported_and_the_others_imported(store: Store, tmp_path: Path) -> None:
    """Every reason of every rejected line, with its number in the file."""
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
    assert [(line.line, sorted(reason.code for reason in line.reasons)) for line in result.rejected] == [
        (4, ["invalid_email", "invalid_phone", "required"]),
        (6, ["unreadable"]),
        (7, ["unreadable"]),
        (8, ["unknown_choice"]),
        (9, ["too_long"]),
    ]
    assert sorted(reason.field for reason in result.rejected[0].reasons) == ["email", "last_name", "phone"]


def test_wrong_encoding_is_refused_before_anything_is_written(store: Store, file: Path) -> None:
    """The message names the line and a remedy; no customer gets a garbled name."""
    with pytest.raises(ImportRejected, match=r"line 3 of .* --encoding latin-1"):
        import_customers(store.channel, file)
    assert store.counts()["customers"] == 0


def test_json_lines_are_imported_like_a_table(store: Store, tmp_path: Path) -> None:
    """A member is a column; a later line may add columns."""
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
    assert (result.read, result.created, [line.line for line in result.rejected]) == (4, 2, [3, 5])
    assert result.unused == ("nested",)
    [ada], [grace] = search_customers(store.channel, "ada"), search_customers(store.channel, "grace")
    assert [address.postal_code for address in ada.state.addresses] == ["77001"]
    assert [(attribute.name, attribute.text) for attribute in ada.state.attributes] == [("score", "1.5")]
    assert [contact.value for contact in grace.state.contacts] == ["+17135550123"]


def test_progress_is_reported_after_each_slice(store: Store, tmp_path: Path) -> None:
    """The number of lines and the share of the file, up to the end."""
    # given
    count = 2 * SLICE_LINES + 10
    lines = ["FirstName,LastName,Email", *(f"Ann,Nr {number},ann{number}@example.com" for number in range(count))]
    calls: list[tuple[int, float]] = []
    # when
    result = import_customers(
        store.channel,
        write(tmp_path / "people.csv", lines),
        progress=lambda read, share: calls.append((read, share)),
    )
    # then
    assert [read for read, _ in calls] == [SLICE_LINES, 2 * SLICE_LINES, count]
    assert calls[-1][1] == 1.0
    assert result.created == count == store.counts()["customers"] == store.counts()["outbox"]


def test_concurrent_imports_of_one_file_create_each_customer_once(store: Store, tmp_path: Path) -> None:
    """The second import finds repeats."""
    # given
    count = 2 * SLICE_LINES
    file = write(tmp_path / "people.csv", ["FirstName,LastName", *(f"Ann,Nr {number}" for number in range(count))])
    # when
    with ThreadPoolExecutor(2) as clerks:
        results = [
            future.result() for future in [clerks.submit(import_customers, store.channel, file) for _ in range(2)]
        ]
    # then
    assert sum(result.created for result in results) == count
    assert sum(result.repeated for result in results) == count
    assert store.counts()["outbox"] == count


def test_killed_import_continues_when_started_again(store: Store, tmp_path: Path) -> None:
    """Lines of committed slices are repeats, the others are imported; no slice is partial."""
    # given
    count = 2 * SLICE_LINES
    file = write(tmp_path / "people.csv", ["FirstName,LastName", *(f"Ann,Nr {number}" for number in range(count))])
    code = (
        "from pathlib import Path; from tenten.settings import load_settings; from tenten import producers; "
        f"houston = producers.open_channel(load_settings(Path({str(store.toml)!r})), 'houston'); "
        f"producers.import_customers(houston, Path({str(file)!r}))"
    )
    run_to_failpoint(code, "customers.before_commit@2", store.toml.parent)
    assert store.counts()["customers"] == SLICE_LINES
    # when
    result = import_customers(store.channel, file)
    # then
    assert (result.repeated, result.created) == (SLICE_LINES, SLICE_LINES)
    assert store.counts()["outbox"] == count


def test_two_channels_import_a_file_as_the_same_customers(store: Store, file: Path) -> None:
    """Their events differ: the second one adds that store's address books, and must not count as a repeat."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    # when
    with open_channel(store.settings, "dallas") as dallas:
        import_customers(dallas, file, encoding="latin-1")
        with dallas.reading() as connection:
            recorded = recorded_ids(connection, [event.event_id for event in store.events()])
            customers = {event.customer_id for event in store.events()}
            unsettled = summaries(connection, customers)
    # then
    assert recorded == set()
    assert unsettled.keys() == customers


def test_erased_customer_is_not_recreated_by_its_file(store: Store, file: Path) -> None:
    """The outbox remembers the line's event, even when the customer was deleted."""
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


def test_file_is_a_repeat_after_its_events_were_pruned(store: Store, file: Path) -> None:
    """Pruning deletes the personal data of old rows, and keeps the ids of imported ones."""
    # given
    import_customers(store.channel, file, encoding="latin-1")
    by_hand = create_customer(store.channel, last_name="Lovelace")
    for event in store.events():
        store.synchronize(event.customer_id, f"C-{event.customer_id[:8]}")
    now = datetime.now(UTC)
    # when
    with store.channel.engine.begin() as connection:
        window = retention.next_window(connection, 0, 1000)
        assert window is not None
        retention.prune(connection, retention.prunable(connection, window, now + timedelta(days=1)))
        assert retention.prunable(connection, window, now + timedelta(days=1)) == []
    # then
    rows = store.rows(channel.outbox)
    assert [row["payload"] for row in rows] == [b"", b"", b""]
    assert by_hand.customer_id not in {row["aggregateid"] for row in rows}
    assert import_customers(store.channel, file, encoding="latin-1").repeated == 3
