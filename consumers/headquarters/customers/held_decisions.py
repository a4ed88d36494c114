"""A person decides to reject a held event that will never be judged.

The decision is noted in its row. A worker then touches the customer, and the owner of its partition rejects the event
in the SQL transaction of that batch, like any other: logged once, and answered together with the offset of the batch.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, update

from tenten.rules.field_rules import Text
from tenten.rules.field_violations import violations
from tenten.rules.limits import is_guid
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import InputRejected, NoSuchHeldEvent
from tenten.schemas.messages import Reason, reasons_as_json
from tenten.schemas.tables.headquarters import held_events

_RULE: Final = Text(500)


def reject_held(engine: Engine, event_ids: Sequence[str], reason: str, operator: str | None) -> None:
    """Note that these held events are to be rejected, for this reason and by this person. Idempotent.

    The clerk reads both. All of the events are noted, or none. Raises: `NoSuchHeldEvent` for one that is not held, or
    not any more; `InputRejected` when reason or operator are too long, or have characters that cannot be stored.
    """
    broken = [*violations(_RULE, "reason", reason), *operator_violations(operator)]
    if broken:
        raise InputRejected(broken)
    by = f" ({operator})" if operator else ""
    rejection = Reason(
        field="", code="rejected_by_headquarters", text=f"Headquarters rejected this change{by}: {reason}"
    )
    columns = held_events.c
    noted = {"rejection": reasons_as_json((rejection,)), "touched_at": None, "touches": 0}
    with engine.begin() as headquarters:
        for event_id in event_ids:
            note = update(held_events).where(columns.event_id == event_id, columns.judged_at.is_(None)).values(noted)
            if not is_guid(event_id) or headquarters.execute(note).rowcount != 1:
                raise NoSuchHeldEvent(
                    f"headquarters does not hold an event {event_id}: see `tenten headquarters held list`. Nothing was "
                    "changed"
                )
