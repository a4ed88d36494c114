"""Scenario 28 of the fault plan: headquarters lacks a privilege, a channel and numbers, and is then corrected."""

import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.faults.checker import violations
from tests.faults.evidence import gather
from tests.faults.processes import worker_process
from tests.faults.settled import wait_until_read, wait_until_settled
from tests.faults.trade import send_steps, shops, trade
from tests.forked import ended_with_block, fork
from tests.roles import worker_role
from tests.scenes import DEADLINE_SECONDS, SETTING, Scene, set_scene
from tests.settings_file import channel
from tests.waiting import wait_for

CHOICES: Final = 8
"""Of each shop; about two records each."""


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Three account numbers are left for two shops."""
    scene = set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, usrt_format="C-#")
    scene.query("UPDATE number_sequences SET next = 7 WHERE legal_entity = 'usrt'")
    return scene


def test_everything_goes_through_once_headquarters_is_corrected(scene: Scene) -> None:
    """Customers, orders, sales and ends of day that were sent meanwhile end as if nothing had been wrong, without a
    hand; and no process stops but the one that lacks a privilege.
    """
    # given
    correct = scene.toml.read_text()
    scene.toml.write_text(correct.replace(channel("houston", may_erase=True), ""))
    scene.apply_settings()
    send_steps(scene, trade(shops(random.Random(28)), CHOICES))

    # when: a privilege is missing
    with worker_role(scene.url) as role:
        scene.query(f"REVOKE INSERT ON customers FROM {role.name}")
        with worker_process(scene, group="transactions") as transactions:
            wait_until_read(scene, "transactions")
            with worker_process(replace(scene, url=role.url, workers=[])) as refused:
                exit_code = refused.dies()
            log = refused.logged()

            # when: a channel is missing, and account numbers
            with worker_process(scene) as headquarters:
                wait_until_read(scene, "headquarters")
                held = causes(scene)

                # when: the channel is known, and then there are numbers
                apply_settings(scene, correct)
                wait_for(partial(has_only, scene, "number_sequence_used_up"), "the events of the new channel")
                apply_settings(scene, correct.replace('"C-#"', '"C-########"'))
                wait_for(partial(has_only, scene), "all held events to be judged")
                wait_until_settled(scene, "transactions", "headquarters", released=True)
                assert [headquarters.stop(), transactions.stop()] == [0, 0]

    # then
    assert exit_code == 1
    assert "permission denied for table customers" in log
    assert held == {"unknown_channel", "number_sequence_used_up"}
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    # The numbers of the first sequence have two formats.
    setting = replace(SETTING, sequences={"demf": SETTING.sequences["demf"]})
    assert violations(evidence, scene.journal, setting) == []
    numbers = [row["account_number"] for row in evidence.headquarters.customers.values() if row["account_number"]]
    american = sorted(int(number.removeprefix("C-")) for number in numbers if number.startswith("C-"))
    assert american == list(range(7, 7 + len(american)))
    assert len(american) > 3


def causes(scene: Scene) -> set[str]:
    """The codes of the reasons for which events are held."""
    return {row["code"] for row in scene.query("SELECT DISTINCT code FROM held_events")}


def has_only(scene: Scene, *codes: str) -> bool:
    """Whether events are held for these reasons only. Fails when a worker dies."""
    for worker in scene.workers:
        worker.check()
    return causes(scene) <= {*codes}


def apply_settings(scene: Scene, toml: str) -> None:
    """Write the file, and run `tenten settings apply`; no worker is restarted."""
    scene.toml.write_text(toml)
    environment = {
        **os.environ,
        "TENTEN_CONFIG": str(scene.toml),
        "TENTEN_HEADQUARTERS_URL": scene.url,
        "KAFKA_BOOTSTRAP_SERVERS": scene.bootstrap_servers,
    }
    log = scene.toml.with_name("apply.log")
    words = ["settings", "apply", str(scene.toml)]
    with ended_with_block(fork(words, directory=scene.toml.parent, log=log, environment=environment)) as process:
        assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()
