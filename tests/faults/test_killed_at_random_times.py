"""Scenario 1 of the fault plan: SIGKILL from outside at random times; for long as a soak test."""

import random
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.faults import headquarters_story, transactions_story
from tests.faults.soak import soak_rng, soak_rounds
from tests.scenes import Scene, set_scene

SEED: Final = 1010
ROUNDS: Final = range(2)


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own; small batches."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, limits={"batch_records_max": 20})


def test_headquarters_killed_at_random_times_changes_nothing(scene: Scene) -> None:
    """SIGKILL from outside, while batches are handled: as at the named points, wherever it hits."""
    story = headquarters_story.killed_at_random_times(scene, random.Random(SEED), ROUNDS)
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL] * len(ROUNDS) + [0]


def test_workers_killed_at_random_times_lose_and_double_nothing(scene: Scene) -> None:
    """SIGKILL of both groups' workers from outside, while sales and customers are handled."""
    story = transactions_story.killed_at_random_times(scene, random.Random(SEED), ROUNDS)
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL] * 2 * len(ROUNDS) + [0, 0]


@pytest.mark.soak
def test_headquarters_killed_again_and_again_changes_nothing(scene: Scene) -> None:
    """The same for a tenth of `TENTEN_SOAK_SECONDS`."""
    story = headquarters_story.killed_at_random_times(scene, soak_rng(), soak_rounds())
    assert story.violations == []
    assert set(story.exit_codes[:-1]) == {-signal.SIGKILL}
    assert story.exit_codes[-1] == 0


@pytest.mark.soak
def test_workers_killed_again_and_again_lose_and_double_nothing(scene: Scene) -> None:
    """The same for a tenth of `TENTEN_SOAK_SECONDS`."""
    story = transactions_story.killed_at_random_times(scene, soak_rng(), soak_rounds())
    assert story.violations == []
    assert set(story.exit_codes[:-2]) == {-signal.SIGKILL}
    assert story.exit_codes[-2:] == [0, 0]
