"""Records whose content is harmful: it fits no output, takes long to read, or is another one than it seems to be.

After each of them another store is served, and its customer is what it was.
"""

import json
import random
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tenten.avro.primitives import data_bytes
from tenten.avro.wire import SINGLE_OBJECT_HEADER_BYTES, SINGLE_OBJECT_MAGIC, avro_schema, contract
from tests.faults.avro import encode
from tests.faults.evidence import headers_of
from tests.faults.journal import Operation
from tests.hostile.foreign_writers import contract_with
from tests.hostile.target import Target, text, with_legal_entity
from tests.signed import record_of

UNKNOWN_SCHEMAS: Final = 2_000


def test_published_schemas_are_used_only_if_they_are_harmless(target: Target) -> None:
    """One under a false fingerprint, one that never ends, one whose texts are numbers, and many unknown ones."""
    # given
    swapped = json.dumps(contract("CustomerEvent").json)
    for before, after in (("first_name", "?"), ("last_name", "first_name"), ("?", "last_name")):
        swapped = swapped.replace(f'"{before}"', f'"{after}"')
    endless = contract_with(changed={"type": "array", "items": "null"})
    numbers = contract_with(channel_id={"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2})
    published = {
        b"swapped!": swapped,
        avro_schema(endless).fingerprint: json.dumps(endless),
        avro_schema(numbers).fingerprint: json.dumps(numbers),
        b"too deep": "[" * 100_000,
    }
    schemas = [
        Operation(topic="schemas", key=name.hex().encode(), value=schema.encode()) for name, schema in published.items()
    ]
    edit = target.attacker.create(target.victim["customer_id"], last_name="Stolen")
    body = encode("CustomerEvent", edit)[SINGLE_OBJECT_HEADER_BYTES:]
    key = edit["customer_id"].encode()
    sign = target.signatures["houston"].sign
    records = [sign(Operation(key=key, value=SINGLE_OBJECT_MAGIC + name + body)) for name in published]
    unknown = [
        Operation(key=key, value=SINGLE_OBJECT_MAGIC + number.to_bytes(8) + body) for number in range(UNKNOWN_SCHEMAS)
    ]

    # when
    target.attack(*schemas)
    target.attack(*records)
    target.attack(*unknown)

    # then
    reasons = [headers_of(target.dead_letter(record))["x-dlq-reason"] for record in records]
    assert reasons == ["unknown_schema", "unknown_schema", "malformed", "unknown_schema"]
    target.assert_unharmed()


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
    # In the name of channels that do not exist: headquarters believes those, as long as it need not hold them.
    records = [*map(record_of, events[:2]), *map(target.event, events[2:]), target.sale(sale)]

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


def test_lists_that_take_long_to_check_are_dead_letters(target: Target) -> None:
    """Each is a few hundred bytes on the wire, and took seconds to check; a few of them kept others waiting."""
    # given
    new = target.attacker.create
    nothing = {"text": None, "integer": None, "boolean": None, "decimal": None}
    records = [
        target.event(event)
        for event in (
            new() | {"changed": [""] * 500_000},
            new() | {"supersedes": [{"event_id": "", "changed": []}] * 240_000},
            new(attributes=[{"name": "", **nothing}] * 90_000) | {"changed": []},
        )
    ]
    sale = target.attacker_till.sale() | {"payments": [{"method": "", "amount": Decimal(0)}] * 200_000}
    records.append(target.sale(sale))

    # when
    for record in records:
        target.attack(*[record] * 5)

    # then
    assert [headers_of(target.dead_letter(record))["x-dlq-reason"] for record in records] == ["malformed"] * 4
    target.assert_unharmed()


def test_number_that_takes_long_to_read_is_a_dead_letter(target: Target) -> None:
    """The time for a number grows with the square of its length; a few such events would stop headquarters."""
    # given
    unset = {"text": None, "integer": None, "boolean": None}
    event = target.attacker.create(attributes=[{"name": "n", **unset, "decimal": Decimal(2**40)}])
    number = data_bytes((2**40 * 1_000_000).to_bytes(8, "big"))
    value = encode("CustomerEvent", event)
    assert value.count(number) == 1
    value = value.replace(number, data_bytes(b"\x7f" * 500_000))
    record = target.signatures["houston"].sign(replace(record_of(event), value=value))

    # when
    target.attack(*[record] * 3)

    # then
    assert headers_of(target.dead_letter(record))["x-dlq-reason"] == "malformed"
    target.assert_unharmed()
