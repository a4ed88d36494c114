"""How long a soak test continues, and its seed: `make soak SECONDS=600 SEED=1` sets both in the environment."""

import os
import random
import secrets
import time
from collections.abc import Iterator
from typing import Final

SECONDS: Final = "TENTEN_SOAK_SECONDS"
SEED: Final = "TENTEN_SOAK_SEED"

_SECONDS_DEFAULT: Final = 60.0


def soak_seed() -> int:
    """The given seed, else a random one; printed, so that a failure can be repeated."""
    seed = int(os.environ.get(SEED) or secrets.randbits(32))
    print(f"{SEED}={seed}")
    return seed


def soak_rng() -> random.Random:
    """A random generator with `soak_seed`."""
    return random.Random(soak_seed())


def soak_rounds() -> Iterator[int]:
    """Counts from 0, at least one round, until the time of this test is over."""
    deadline = time.monotonic() + float(os.environ.get(SECONDS) or _SECONDS_DEFAULT)
    number = 0
    while number == 0 or time.monotonic() < deadline:
        yield number
        number += 1
