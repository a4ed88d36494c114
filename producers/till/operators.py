"""The operator of a call: the person who works at the till."""

from tenten.producers.till.customer_merge import clean
from tenten.producers.till.open_channel import OpenChannel


def operator_of(channel: OpenChannel, operator: str | None) -> str | None:
    """The given operator, by default the channel's, trimmed and composed; None for an empty text."""
    name = channel.operator if operator is None else operator
    return None if name is None else clean(name) or None
