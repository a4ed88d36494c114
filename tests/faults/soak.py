"""How long soak tests continue, and their seed: `make soak SECONDS=600 SEED=1` sets both in the environment."""

import os
import random
import secrets
import time
from collections.abc import Iterator
from typing import Final

SECONDS: Final = "TENTEN_SOAK_SECONDS"
SEED: Final = "TENTEN_SOAK_SEED"
RESULT: Final = "TENTEN_SOAK_RESULT"
"""The file that the combined run writes its result to, if nothing is wrong."""

OTHERS_SHARE: Final = 0.1
"""The share of the seconds for each test that repeats one kind of fault; the combined run has all of them."""

_SECONDS_DEFAULT: Final = 60.0


def soak_seconds() -> float:
    """The seconds of the combined run, without its accidents."""
    return float(os.environ.get(SECONDS) or _SECONDS_DEFAULT)


def soak_seed() -> int:
    """The given seed, else a random one; printed, so that a failure can be repeated."""
    seed = int(os.environ.get(SEED) or secrets.randbits(32))
    print(f"{SEED}={seed}")
    return seed


def soak_rng() -> random.Random:
    """A random generator with `soak_seed`."""
    return random.Random(soak_seed())


def soak_rounds() -> Iterator[int]:
    """Counts from 0, at least one round, until the share of this test is over."""
    deadline = time.monotonic() + OTHERS_SHARE * soak_seconds()
    number = 0
    while number == 0 or time.monotonic() < deadline:
        yield number
        number += 1
