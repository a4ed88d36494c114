"""A record that headquarters sends."""

from typing import NamedTuple

from tenten.kafka.records import Headers


class Output(NamedTuple):
    """One record to send."""

    key: bytes
    value: bytes | None
    headers: Headers
