"""Scenario 12 of the fault plan for transactions: workers start and stop while everything else continues."""

import random
from pathlib import Path
from typing import Final

import pytest

from tests.faults.checker import violations
from tests.faults.evidence import gather
from tests.faults.settled import wait_until_settled
from tests.faults.trade import send_steps, shops, trade
from tests.scenes import SETTING, Scene, set_scene

CHOICES: Final = 10
"""Of each shop in each of three rounds; about two records each."""


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own; small batches, so that workers meet."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, limits={"batch_records_max": 5})


def test_workers_that_start_and_stop_book_everything_once(scene: Scene) -> None:
    """Several ingest, release and reply at the same time, with the result of a single worker."""
    # given
    sellers = shops(random.Random(12))

    # when
    with scene.headquarters(), scene.transactions():
        send_steps(scene, trade(sellers, CHOICES, closes=False))
        with scene.transactions(), scene.transactions():
            send_steps(scene, trade(sellers, CHOICES, closes=False))
        send_steps(scene, trade(sellers, CHOICES))
        with scene.transactions():
            wait_until_settled(scene, "transactions", "headquarters", released=True)

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
