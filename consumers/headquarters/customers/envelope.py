"""Validate the envelope of an event: everything around its customer, and whether it can be judged yet."""

from collections.abc import Iterator
from typing import Final

from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.rules.limits import is_guid
from tenten.rules.operator_rule import operator_violations
from tenten.schemas.messages import HEADQUARTERS, CustomerEvent, EventKind, Reason

_WITHOUT_CUSTOMER: Final = frozenset((EventKind.ERASED, EventKind.TOUCHED))
"""Kinds of events whose customer does not matter."""


def hold_reasons(event: CustomerEvent, channels: KnownChannels) -> tuple[Reason, ...]:
    """The reasons why an event cannot be judged yet: headquarters' settings lack its channel or its legal entity."""
    reasons: list[Reason] = []
    if event.channel_id != HEADQUARTERS and event.channel_id not in channels.legal_entity_by_channel:
        reasons.append(
            Reason(
                field="channel_id",
                code="unknown_channel",
                text=f"Headquarters has no channel {event.channel_id[:64]!r} yet.",
            )
        )
    entity = None if event.customer is None or event.kind in _WITHOUT_CUSTOMER else event.customer.legal_entity
    if entity is not None and entity not in channels.legal_entities:
        reasons.append(
            Reason(
                field="legal_entity",
                code="unknown_legal_entity",
                text=f"Headquarters has no legal entity {entity[:64]!r} yet.",
            )
        )
    return tuple(reasons)


def envelope_errors(event: CustomerEvent, channels: KnownChannels) -> tuple[Reason, ...]:
    """The errors of an event apart from its customer's fields: what its channel may not do, operator, ids, a missing
    customer, the legal entity of another channel.
    """
    reasons = [*_not_permitted(event, channels), *operator_violations(event.operator)]
    if not all(is_guid(superseded.event_id) for superseded in event.supersedes):
        reasons.append(
            Reason(field="supersedes", code="invalid_id", text="An id is a GUID in lower case, with hyphens.")
        )
    if event.kind in _WITHOUT_CUSTOMER:
        return tuple(reasons)
    if event.customer is None:
        return (*reasons, Reason(field="customer", code="required", text="The event has no customer."))
    entity = event.customer.legal_entity
    if channels.legal_entity_by_channel.get(event.channel_id, entity) != entity:
        reasons.append(other_legal_entity(entity))
    return tuple(reasons)


def _not_permitted(event: CustomerEvent, channels: KnownChannels) -> Iterator[Reason]:
    """Erasing is for headquarters and the channels that are allowed to; touching is for headquarters."""
    if event.channel_id == HEADQUARTERS:
        return
    if event.kind is EventKind.TOUCHED:
        yield Reason(field="kind", code="not_permitted", text="Only headquarters may have a customer sent again.")
    elif event.kind is EventKind.ERASED and event.channel_id not in channels.erasing:
        yield Reason(field="kind", code="not_permitted", text="This channel may not erase customers.")


def other_legal_entity(entity: str) -> Reason:
    """The rejection of a customer of another legal entity than its channel's, or than it already belongs to."""
    return Reason(
        field="legal_entity",
        code="other_legal_entity",
        text=f"Legal entity {entity!r} is not that of the channel or customer.",
    )
