"""Import customers from a CSV or JSON Lines file, once or repeatedly.

Each line is a customer. A repeated line changes nothing, even after a year and after later changes of the customer. A
line with a known key and other content is an edit of the fields in which it differs from the current customer. Empty
cells are ignored. Lines that break rules are rejected one by one, with every reason.

Ids are derived from the lines (line_input.py), so an import that was killed is simply started again. Slices of lines
are written in one SQL transaction each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from tenten.producers.importing.column_mapping import Columns, check_mapping, choose_columns
from tenten.producers.importing.file_reader import Line, open_lines
from tenten.producers.importing.import_result import ImportResult, LineResult, Tally
from tenten.producers.importing.line_input import LineInput, line_context, read_line
from tenten.producers.outbox import customer_events, table
from tenten.producers.outbox.customer_events import OutboxEvent
from tenten.producers.till import customer_change
from tenten.producers.till.customer_change import Change
from tenten.producers.till.customer_merge import merge_input
from tenten.producers.till.customers import customer_violations, new_state
from tenten.producers.till.database_session import AlreadyRecorded, reading, writing
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.operators import operator_of
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import ImportRejected
from tenten.schemas.messages import CustomerState, Reason
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, read_customers

DEFAULT_ENCODING: Final = "utf-8-sig"
SLICE_LINES: Final = 500
"""Small enough not to block the writes of a SQLite till noticeably, large enough that commits cost little."""
REJECTED_MAX: Final = 100_000
"""With more rejected lines, the file or its mapping is wrong, not its lines."""

_ATTEMPTS: Final = 3

Progress = Callable[[int, float], None]
"""Called after each slice with the number of lines read and the share of the file, from 0 to 1."""


def import_customers(
    channel: OpenChannel,
    source: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    key: str | None = None,
    encoding: str = DEFAULT_ENCODING,
    operator: str | None = None,
    progress: Progress = lambda _lines, _share: None,
) -> ImportResult:
    """Import a file. Columns are guessed from common names, or named by `mapping` (column to field, "" ignores one);
    `key` names the column that identifies customers (default: a column named like `CustomerKey`). `operator` is the
    person who imports the file; default: that of the channel.

    Raises: `ImportRejected` for a file that cannot be imported as a whole, before anything is written (except for too
    many rejected lines); `DatabaseRefused`: slices imported until then stay, and the same call continues.
    """
    mapping = mapping or {}
    check_mapping(mapping)
    operator = operator_of(channel, operator)
    for violation in operator_violations(operator):
        raise ImportRejected(f"operator: {violation.text}")
    tally = Tally()
    columns: Columns | None = None
    with open_lines(source, encoding) as file:
        tally.add_columns(file.columns)
        if not file.is_json:
            columns = choose_columns(file.columns, mapping, key)
        lines = file.lines()
        while batch := list(islice(lines, SLICE_LINES)):
            for line in batch:
                tally.add_columns((*line.cells, *line.nested))
            if file.is_json:
                columns = _extended(columns, tally.columns, mapping, key)
            assert columns is not None
            tally.add(len(batch), _import_slice(channel, batch, columns, operator))
            if len(tally.rejected) > REJECTED_MAX:
                raise ImportRejected(
                    f"more than {REJECTED_MAX} lines of {source} are rejected, the last one is line "
                    f"{batch[-1].number}: check the columns; customers imported until then stay"
                )
            progress(tally.read, file.share)
    return tally.result(columns or Columns(fields={}, key=None))


def _extended(
    columns: Columns | None, present: Mapping[str, None], mapping: Mapping[str, str], key: str | None
) -> Columns:
    """The use of the members of JSON objects. Later lines may add members; the key stays."""
    if columns is None:
        return choose_columns(present, mapping, key)
    if columns.fields.keys() >= present.keys():
        return columns
    return replace(choose_columns(present, mapping, columns.key), key=columns.key)


def _import_slice(
    channel: OpenChannel, batch: Sequence[Line], columns: Columns, operator: str | None
) -> dict[int, LineResult]:
    """Import these lines in one transaction; returns the result of each line by its number."""
    now = datetime.now(UTC)
    results: dict[int, LineResult] = {}
    lines = []
    for line in batch:
        line_input = read_line(channel, line, columns)
        if isinstance(line_input, LineInput):
            lines.append(line_input)
        else:
            results[line.number] = line_input
    # New customers are built and validated before the transaction, which blocks all other writers of a SQLite database.
    with reading(channel) as connection:
        existing = customer_change.existing_ids(connection, [line.customer_id for line in lines])
    new = {line.event_id: _new_customer(channel, line, now) for line in lines if line.customer_id not in existing}
    for attempt in count(1):
        try:
            with writing(channel) as connection:
                return results | _write(connection, channel, lines, new, now, operator=operator)
        except AlreadyRecorded:
            # Another import has written one of these lines at the same moment; the next attempt reads it.
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError


def _new_customer(channel: OpenChannel, line: LineInput, now: datetime) -> tuple[CustomerState, tuple[Reason, ...]]:
    """The customer that a line creates, and the rules that it breaks."""
    return _merged(channel, None, line, now)


def _merged(
    channel: OpenChannel, before: CustomerState | None, line: LineInput, now: datetime
) -> tuple[CustomerState, tuple[Reason, ...]]:
    base = new_state(channel, line.fields) if before is None else before
    state = merge_input(base, line.fields, line_context(channel, line, now))
    return state, customer_violations(channel, before, state)


def _write(
    connection: Connection,
    channel: OpenChannel,
    lines: Sequence[LineInput],
    new: Mapping[str, tuple[CustomerState, tuple[Reason, ...]]],
    now: datetime,
    *,
    operator: str | None,
) -> dict[int, LineResult]:
    """Write the changes of these lines, in their order; returns the result of each."""
    recorded = table.recorded_ids(connection, [line.event_id for line in lines])
    touched = [line.customer_id for line in lines if line.event_id not in recorded]
    customers = read_customers(connection, CHANNEL_TABLES, touched, for_update=True)
    events = customer_events.overlay_events(connection, customers.keys(), channel.writers)
    results: dict[int, LineResult] = {}
    changes: list[Change] = []
    for line in lines:
        if line.event_id in recorded:
            results[line.line] = "repeated"
            continue
        before = customers.get(line.customer_id)
        if before is None:
            state, violations = new.get(line.event_id) or _new_customer(channel, line, now)
        else:
            state, violations = _merged(channel, before.state, line, now)
        if violations:
            results[line.line] = violations
            continue
        overlay = events.setdefault(line.customer_id, [])
        change = _change(channel.name, line, operator=operator, before=before, events=overlay, state=state, now=now)
        results[line.line] = "created" if before is None else "edited" if change.event.changed else "repeated"
        recorded.add(line.event_id)
        customers[line.customer_id] = change.after
        overlay.append(customer_events.as_appended(change.event))
        changes.append(change)
    customer_change.write(connection, changes, now)
    return results


def _change(
    channel_id: str,
    line: LineInput,
    *,
    operator: str | None,
    before: StoredCustomer | None,
    events: Sequence[OutboxEvent],
    state: CustomerState,
    now: datetime,
) -> Change:
    """The change of a line. A line that changes nothing is written, too, so that its repetition is recognised."""
    if before is None:
        return customer_change.created(
            channel_id=channel_id,
            customer_id=line.customer_id,
            event_id=line.event_id,
            operator=operator,
            state=state,
            now=now,
        )
    return customer_change.edited(
        channel_id=channel_id,
        event_id=line.event_id,
        operator=operator,
        before=before,
        events=events,
        state=state,
        now=now,
    )
