"""E1: headquarters decodes events of the last release, against events of this one. It needs no servers.

The same customers are encoded with both schemas, and decoded in batches as headquarters does, in turns.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from benchmarks.customers import events
from benchmarks.measuring import Result, Run, Scale, rates
from benchmarks.servers import Servers
from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract, decode_body, encode, released_contract
from tenten.schemas.topics import EVENT_BYTES_MAX

AT_LEAST_E1: Final = 0.8

_BATCH_RECORDS: Final = 10_000
_BATCHES: Final = 20


def decoding(_: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """E1."""
    assert bars == {"E1"}
    current, released = contract("CustomerEvent"), released_contract("CustomerEvent")
    made = list(islice(events(_BATCH_RECORDS), _BATCH_RECORDS))
    keys = [record.key for record in made]
    newer = [record.value for record in made]
    bodies = [value[len(current.header) :] for value in newer]
    older = [encode(released, decode_body(body, writer=current, reader=released)) for body in bodies]
    of_current, of_released = [], []
    for _number in range(scale.runs + 1):
        of_released.append(_run(keys, older))
        of_current.append(_run(keys, newer))
    yield Result(
        bar="E1",
        what="decoding events of the last release",
        against="decoding events of this release",
        unit="k/s",
        subject=rates(of_released[1:]),
        limit=rates(of_current[1:]),
        at_least=AT_LEAST_E1,
        settings={"records a batch": _BATCH_RECORDS, "batches": _BATCHES},
    )


def _run(keys: Sequence[bytes], values: Sequence[bytes]) -> Run:
    reader, writers = contract("CustomerEvent"), WriterSchemas()
    started_at = time.perf_counter()
    for _ in range(_BATCHES):
        decoded = decode_batch(reader, keys, values, writers, EVENT_BYTES_MAX)
        assert decoded.frame.height == len(keys)
    return Run(records=_BATCHES * len(keys), seconds=time.perf_counter() - started_at)
