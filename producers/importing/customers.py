"""Import customers from a file, CSV or JSON Lines: a channel's first customers, or those of another system again and
again.

A line is a customer. The same line again is a repeat and changes nothing, even after a year and whatever has become
of the customer since; a line whose key was seen before and that says something else is an edit of what it says
differently from the customer as it is now. An empty cell says nothing. Lines that break a rule are refused one by
one, with every reason.

Customer ids and event ids are made from the file (UUIDv5): from legal entity and key, or the line itself, and from
that and what the line says. A killed import is simply started again. Slices of lines are written in one SQL
transaction each.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Final, Literal
from uuid import UUID, uuid5

from sqlalchemy import Connection

from tenten.producers import outbox
from tenten.producers.importing.column_mapping import Columns, check_mapping, choose_columns
from tenten.producers.importing.file_reader import Line, open_lines
from tenten.producers.outbox import OutboxEvent
from tenten.producers.till import customer_change as changes
from tenten.producers.till.customer_change import Change
from tenten.producers.till.customer_input import CustomerFields, Entering, clean, fields_from_texts, with_fields
from tenten.producers.till.customers import AlreadyThere, new_state, reading, writing
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer_rules import reasons
from tenten.runtime.errors import ImportRejected
from tenten.schemas.messages import CustomerState, Reason
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, read_customers

DEFAULT_ENCODING: Final = "utf-8-sig"
LINES_A_SLICE: Final = 500
"""So few that a clerk at a SQLite till does not notice, so many that the commits do not count."""
REFUSED_MAX: Final = 100_000
"""So many refused lines are a wrong file, not wrong lines."""

_ATTEMPTS: Final = 3
_NAMESPACE: Final = UUID("6d1f5f0e-54f3-4d3b-9a5c-0f2b7c1e8a10")
"""Of all ids made from lines of files; changed, it would make every import a new one."""

Progress = Callable[[int, float], None]
"""Is told after each slice how many lines were read, and which share of the file, from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedLine:
    """A line that was not imported: its number in the file, counted from 1, and every reason."""

    line: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of a file: `read` lines are `created`, `edited`, `repeated` or refused."""

    read: int
    created: int
    edited: int
    repeated: int
    refused: tuple[RefusedLine, ...]
    columns: Mapping[str, str]
    """The field that each used column said."""
    key: str | None
    """The column that told customers apart."""
    unused: tuple[str, ...]
    """The columns that said nothing."""


def import_customers(
    channel: OpenChannel,
    source: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    key: str | None = None,
    encoding: str = DEFAULT_ENCODING,
    progress: Progress = lambda _lines, _share: None,
) -> ImportResult:
    """Import a file. Columns are guessed from common names, or named by `mapping` (column to field, "" leaves one out);
    `key` names the column that tells customers apart, unless one is called `CustomerKey` or so.

    Raises: `ImportRejected` when the file as a whole makes no sense, before anything is written (only too many refused
    lines stop it later); `DatabaseRefused`: then what was imported stays, and the same call goes on.
    """
    mapping = mapping or {}
    check_mapping(mapping)
    tally = _Tally()
    columns: Columns | None = None
    with open_lines(source, encoding) as file:
        tally.see(file.columns)
        if not file.is_json:
            columns = choose_columns(file.columns, mapping, key)
        lines = file.lines()
        while batch := list(islice(lines, LINES_A_SLICE)):
            for line in batch:
                tally.see((*line.cells, *line.nested))
            if file.is_json:
                columns = _columns(columns, tally.seen, mapping, key)
            assert columns is not None
            tally.add(len(batch), _import_slice(channel, batch, columns))
            if len(tally.refused) > REFUSED_MAX:
                raise ImportRejected(
                    f"more than {REFUSED_MAX} lines of {source} are refused, the last one is line {batch[-1].number}: "
                    "look at the columns; what was imported before stays"
                )
            progress(tally.read, file.share)
    return tally.result(columns or Columns(fields={}, key=None))


def _columns(before: Columns | None, seen: Mapping[str, None], mapping: Mapping[str, str], key: str | None) -> Columns:
    """What the members of JSON objects are used for. A later line may bring more of them; the key stays."""
    if before is None:
        return choose_columns(seen, mapping, key)
    if before.fields.keys() >= seen.keys():
        return before
    return replace(choose_columns(seen, mapping, before.key), key=before.key)


Fate = Literal["created", "edited", "repeated"] | tuple[Reason, ...]
"""What became of a line; the reasons of one that was refused."""


@dataclass(slots=True)
class _Tally:
    """What has become of the lines up to now."""

    read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedLine] = field(default_factory=list)
    seen: dict[str, None] = field(default_factory=dict)
    """The columns of the file, in their order."""

    def see(self, columns: Iterable[str]) -> None:
        self.seen.update(dict.fromkeys(columns))

    def add(self, read: int, fates: Mapping[int, Fate]) -> None:
        self.read += read
        for line, fate in sorted(fates.items()):
            if isinstance(fate, tuple):
                self.refused.append(RefusedLine(line=line, reasons=fate))
            else:
                self.counts[fate] += 1

    def result(self, columns: Columns) -> ImportResult:
        used = {column: said for column, said in columns.fields.items() if column in self.seen}
        return ImportResult(
            read=self.read,
            created=self.counts["created"],
            edited=self.counts["edited"],
            repeated=self.counts["repeated"],
            refused=tuple(self.refused),
            columns=used,
            key=columns.key,
            unused=tuple(name for name in self.seen if name and name not in used and name != columns.key),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A line that can be read: whom it is about, and what it says."""

    line: int
    customer_id: str
    event_id: str
    fields: CustomerFields


def _import_slice(channel: OpenChannel, batch: Sequence[Line], columns: Columns) -> dict[int, Fate]:
    """Write what these lines say in one transaction; gives what has become of each line, by its number."""
    now = datetime.now(UTC)
    fates: dict[int, Fate] = {}
    said = []
    for line in batch:
        read = _read(channel.legal_entity_id, line, columns)
        if isinstance(read, _Said):
            said.append(read)
        else:
            fates[line.number] = read
    # New customers are made and judged before the transaction, which shuts out every other writer of a SQLite database.
    with reading(channel) as connection:
        there = changes.existing(connection, [one.customer_id for one in said])
    new = {one.event_id: _new_state(channel, one, now) for one in said if one.customer_id not in there}
    for attempt in count(1):
        try:
            with writing(channel) as connection:
                return fates | _write(connection, channel, said, new, now)
        except AlreadyThere:
            # Another import wrote one of these lines at the same moment; now it can be seen.
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError


def _read(legal_entity: str, line: Line, columns: Columns) -> _Said | tuple[Reason, ...]:
    """Whom a line is about and what it says, or why it says nothing."""
    if line.problem is not None:
        return (line.problem,)
    nested = [one for one in line.nested if one in columns.fields or one == columns.key]
    if nested:
        text = "This must be a text, a number, true, false or null."
        return tuple(Reason(field=one, code="nested", text=text) for one in nested)
    texts = {said: text for column, said in columns.fields.items() if (text := clean(line.cells.get(column, ""))) != ""}
    content = json.dumps(texts, ensure_ascii=True, sort_keys=True)
    if columns.key is None:
        identity = f"line\n{content}"
    else:
        key = clean(line.cells.get(columns.key, ""))
        if not key:
            return (Reason(field=columns.key, code="required", text="This line has no key."),)
        identity = f"key\n{json.dumps(key)}"
    try:
        fields = fields_from_texts(texts)
    except ValueError as error:
        return (Reason(field="line", code="unknown_choice", text=str(error)),)
    customer_id = uuid5(_NAMESPACE, f"{legal_entity}\n{identity}")
    return _Said(
        line=line.number,
        customer_id=str(customer_id),
        event_id=str(uuid5(customer_id, content)),
        fields=fields,
    )


def _new_state(channel: OpenChannel, said: _Said, now: datetime) -> tuple[CustomerState, tuple[Reason, ...]]:
    """The customer that a line creates, and the rules it breaks."""
    state = with_fields(new_state(channel, said.fields), said.fields, _entering(channel, said, now))
    return state, reasons(state)


def _entering(channel: OpenChannel, said: _Said, now: datetime) -> Entering:
    """Ids of addresses and contacts are made from the event's: a line imported twice at once makes them once."""
    numbers = count(1)
    event_id = UUID(said.event_id)
    return Entering(country=channel.country, now=now, new_id=lambda: str(uuid5(event_id, str(next(numbers)))))


def _write(
    connection: Connection,
    channel: OpenChannel,
    said: Sequence[_Said],
    new: Mapping[str, tuple[CustomerState, tuple[Reason, ...]]],
    now: datetime,
) -> dict[int, Fate]:
    """Write what is new in these lines, in their order, and say what became of each."""
    known = outbox.known_events(connection, [one.event_id for one in said])
    asked = [one.customer_id for one in said if one.event_id not in known]
    customers = read_customers(connection, CHANNEL_TABLES, asked, for_update=True)
    events = outbox.events_of(connection, customers.keys(), channel.writers)
    fates: dict[int, Fate] = {}
    made: list[Change] = []
    for one in said:
        if one.event_id in known:
            fates[one.line] = "repeated"
            continue
        before = customers.get(one.customer_id)
        if before is None:
            state, broken = new.get(one.event_id) or _new_state(channel, one, now)
        else:
            state = with_fields(before.state, one.fields, _entering(channel, one, now))
            broken = reasons(state)
        if broken:
            fates[one.line] = broken
            continue
        change = _change(channel.name, one, before=before, events=events.get(one.customer_id, []), state=state, now=now)
        fates[one.line] = "created" if before is None else "edited" if change.event.changed else "repeated"
        known.add(one.event_id)
        customers[one.customer_id] = change.after
        events.setdefault(one.customer_id, []).append(outbox.as_appended(change.event))
        made.append(change)
    changes.write(connection, made, now)
    return fates


def _change(
    channel_id: str,
    said: _Said,
    *,
    before: StoredCustomer | None,
    events: Sequence[OutboxEvent],
    state: CustomerState,
    now: datetime,
) -> Change:
    """The event of a line. One that changes nothing is written too: the same line again must stay a repeat."""
    if before is None:
        return changes.created(
            channel_id=channel_id, customer_id=said.customer_id, event_id=said.event_id, state=state, now=now
        )
    return changes.edited(
        channel_id=channel_id, event_id=said.event_id, before=before, events=events, state=state, now=now
    )
