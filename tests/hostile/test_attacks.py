"""Attacks on a running headquarters by somebody with a store's access to the topics.

After each of them another store is served, and its customer is what it was.
"""

import random
import string
from decimal import Decimal
from typing import Any, Final

from tenten.avro.primitives import data_bytes
from tests.faults.avro import encode
from tests.faults.evidence import headers_of
from tests.faults.journal import Operation
from tests.hostile.target import Target

_LETTERS: Final = string.ascii_letters + string.digits


def record_of(event: dict[str, Any]) -> Operation:
    """The record of an event, under its customer's id."""
    return Operation(key=event["customer_id"].encode(), value=encode("CustomerEvent", event))


def text(characters: int) -> str:
    """A text that cannot be compressed much."""
    return "".join(random.Random(1).choices(_LETTERS, k=characters))


def with_legal_entity(event: dict[str, Any], name: str) -> dict[str, Any]:
    """The event with its customer in this legal entity."""
    return event | {"customer": event["customer"] | {"legal_entity": name}}


def test_identifiers_that_fit_no_output_are_dead_letters(target: Target) -> None:
    """A reply to such an event would not fit its topic, or no row could hold it."""
    # given
    new = target.attacker.create
    superseded = {"event_id": text(70), "changed": []}
    events = (
        new() | {"channel_id": text(450_000)},
        new() | {"channel_id": "houston\n"},
        with_legal_entity(new(), text(300_000)),
        with_legal_entity(new(), "\x01" * 300_000),
        new() | {"supersedes": [superseded]},
    )
    sale = target.attacker_till.sale() | {"legal_entity": text(400_000)}
    records = [record_of(event) for event in events]
    records.append(Operation(topic="retail-transactions", key=b"houston", value=encode("RetailTransaction", sale)))

    # when
    target.attack(*records)

    # then
    for record in records:
        letter = target.dead_letter(record)
        assert headers_of(letter)["x-dlq-reason"] == "malformed"
        assert (letter.key, letter.value) == (record.key, record.value)
    target.assert_unharmed()


def test_record_that_was_compressed_beyond_all_limits_is_cut(target: Target) -> None:
    """Of a record that fits no dead letter the beginning is kept; small records on the wire can be that large."""
    # given: repeated at a distance that a stronger compression than headquarters' recognizes
    block = random.Random(1).randbytes(200_000)
    key = target.attacker.guid().encode()
    bomb = Operation(key=key, value=block * 100, headers=(("x", b"y"),))

    # when
    target.attack(bomb)

    # then
    letter = target.dead_letter(bomb)
    headers = headers_of(letter)
    assert (headers["x-dlq-reason"], int(headers["x-dlq-cut-from-bytes"]) > 20_000_000) == ("too_large", True)
    assert (letter.key, letter.value) == (key, block[: 64 * 1024])
    assert "x" not in headers
    target.assert_unharmed()


def test_number_that_takes_long_to_read_is_a_dead_letter(target: Target) -> None:
    """The time for a number grows with the square of its length; a few such events would stop headquarters."""
    # given
    unset = {"text": None, "integer": None, "boolean": None}
    event = target.attacker.create(attributes=[{"name": "n", **unset, "decimal": Decimal(2**40)}])
    number = data_bytes((2**40 * 1_000_000).to_bytes(8, "big"))
    record = record_of(event)
    assert record.value is not None
    assert record.value.count(number) == 1
    record.value = record.value.replace(number, data_bytes(b"\x7f" * 500_000))

    # when
    target.attack(*[record] * 3)

    # then
    assert headers_of(target.dead_letter(record))["x-dlq-reason"] == "malformed"
    target.assert_unharmed()
