"""The customer input of a line, with ids derived from the line.

Customer ids and event ids are UUIDv5: the customer's from legal entity and key (or the whole line), the event's from
the customer's id and the line's content. So a repeated line has the ids of the first one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Final
from uuid import UUID, uuid5

from tenten.producers.importing.column_mapping import Columns
from tenten.producers.importing.file_reader import Line
from tenten.producers.till.customer_input import CustomerFields
from tenten.producers.till.customer_merge import InputContext, clean
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.text_input import fields_from_texts
from tenten.schemas.messages import Reason

_NAMESPACE: Final = UUID("6d1f5f0e-54f3-4d3b-9a5c-0f2b7c1e8a10")
"""The namespace of all ids derived from lines. Never change it: repeated lines would become new customers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineInput:
    """The customer input of a readable line, and the ids derived from it."""

    line: int
    customer_id: str
    event_id: str
    fields: CustomerFields


def read_line(channel: OpenChannel, line: Line, columns: Columns) -> LineInput | tuple[Reason, ...]:
    """The input of a line, or the reasons why it has none."""
    if line.problem is not None:
        return (line.problem,)
    nested = [column for column in line.nested if column in columns.fields or column == columns.key]
    if nested:
        sentence = "Must be a text, a number, true, false or null."
        return tuple(Reason(field=column, code="nested", text=sentence) for column in nested)
    texts = {
        field: text for column, field in columns.fields.items() if (text := clean(line.cells.get(column, ""))) != ""
    }
    content = json.dumps(texts, ensure_ascii=True, sort_keys=True)
    identity = _identity(line.cells, columns.key, content)
    if isinstance(identity, Reason):
        return (identity,)
    try:
        fields = fields_from_texts(texts)
    except ValueError as error:
        return (Reason(field="line", code="unknown_choice", text=str(error)),)
    customer_id = uuid5(_NAMESPACE, f"{channel.legal_entity_id}\n{identity}")
    return LineInput(
        line=line.number,
        customer_id=str(customer_id),
        # The channel, because another one that imports the line adds its own address books to the customer.
        event_id=str(uuid5(customer_id, f"{channel.name}\n{content}")),
        fields=fields,
    )


def _identity(cells: Mapping[str, str], key_column: str | None, content: str) -> str | Reason:
    """The text that identifies the customer of a line: its key, or its content in a file without keys."""
    if key_column is None:
        return f"line\n{content}"
    key = clean(cells.get(key_column, ""))
    if not key:
        return Reason(field=key_column, code="required", text="This line has no key.")
    return f"key\n{json.dumps(key)}"


def line_context(channel: OpenChannel, line: LineInput, now: datetime) -> InputContext:
    """The context of a line: ids of addresses and contacts are derived from the event's id, so that two imports of the
    same line at the same time create them once.
    """
    numbers = count(1)
    event_id = UUID(line.event_id)
    return InputContext(
        country=channel.country,
        now=now,
        new_id=lambda: str(uuid5(event_id, str(next(numbers)))),
        definitions=channel.definitions,
    )
