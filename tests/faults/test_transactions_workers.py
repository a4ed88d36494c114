"""Scenario 12 of the fault plan for what channels sell: workers come and go while everything else goes on."""

import random
from pathlib import Path

import pytest

from tests.faults.checker import violations
from tests.faults.evidence import gather
from tests.faults.settled import wait_until_settled
from tests.faults.trade import send_steps, shops, trade
from tests.scenes import SETTING, Scene, set_scene


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own; small batches, so that workers meet."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, limits={"batch_records_max": 5})


def test_workers_that_come_and_go_book_everything_once(scene: Scene) -> None:
    """Several take in, let through and answer at the same time: as one alone would have done it."""
    # given
    sellers = shops(random.Random(12))

    # when
    with scene.headquarters(), scene.transactions():
        send_steps(scene, trade(sellers, closes=False))
        with scene.transactions(), scene.transactions():
            send_steps(scene, trade(sellers, closes=False))
        send_steps(scene, trade(sellers))
        with scene.transactions():
            wait_until_settled(scene, "transactions", "headquarters", released=True)

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
