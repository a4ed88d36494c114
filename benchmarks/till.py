"""A till of the load: `python -m benchmarks.till STORE`, one process and one thread in a store.

Reads orders from stdin, one JSON object a line, and answers each with a line when it is done. It creates customers at a
steady pace, whatever becomes of them, and makes up for late creates.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tenten.producers.till.customer_input import NewAddress
from tenten.producers.till.customers import create_customer
from tenten.producers.till.open_channel import OpenChannel, open_channel
from tenten.producers.till.sync_create import register_customer
from tenten.runtime.settings import load_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Create this many customers."""

    first: int
    count: int
    start_at: float
    """By `time.monotonic`, which processes of a machine share."""
    interval_seconds: float
    """From the begin of a create to the begin of the next; 0: without a pause."""
    sync_seconds: float = 0.0
    """How long each create waits for its account number; 0 does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """When an order was carried out, by `time.monotonic`, and how long each create took."""

    begun_at: float
    ended_at: float
    milliseconds: Sequence[float]


def main(store: str) -> None:
    """Carry out orders until stdin ends."""
    with open_channel(load_settings(), store) as channel:
        print(json.dumps(store), flush=True)
        for line in sys.stdin:
            print(json.dumps(asdict(_carry_out(channel, Order(**json.loads(line))))), flush=True)


def _carry_out(channel: OpenChannel, order: Order) -> Done:
    milliseconds = []
    time.sleep(max(0.0, order.start_at - time.monotonic()))
    begun_at = time.monotonic()
    for number in range(order.first, order.first + order.count):
        if order.interval_seconds:
            due_at = order.start_at + (number - order.first) * order.interval_seconds
            time.sleep(max(0.0, due_at - time.monotonic()))
        started_at = time.monotonic()
        if order.sync_seconds:
            _create_and_wait(channel, number, order.sync_seconds)
        else:
            _create(channel, number)
        milliseconds.append((time.monotonic() - started_at) * 1000)
    return Done(begun_at=begun_at, ended_at=time.monotonic(), milliseconds=milliseconds)


def _create(channel: OpenChannel, number: int) -> None:
    create_customer(
        channel,
        first_name="Ada",
        last_name=f"Lovelace {number}",
        email=f"ada.{channel.name}.{number}@example.com",
        phone=f"713 555 {number % 10_000:04d}",
        address=NewAddress(street=f"{number} Main St", city="Houston", state="TX", postal_code="77002"),
    )


def _create_and_wait(channel: OpenChannel, number: int, seconds: float) -> None:
    customer = register_customer(
        channel, sync_seconds=seconds, first_name="Ada", last_name=f"Lovelace {number}", phone="713 555 0100"
    )
    assert customer.account_number is not None, f"a sync create was not answered in {seconds:g} s"


if __name__ == "__main__":
    main(*sys.argv[1:])
