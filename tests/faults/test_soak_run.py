"""Scenario 27 of the fault plan: a company works for `TENTEN_SOAK_SECONDS` while everything is done to it.

Five workers at headquarters, four stores with their clerks, a killer, servers that are restarted, and three accidents:
a database that is put back to an older copy, and two topics that are created again. In the end everything settles
without a hand, and the checker finds nothing.
"""

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.soak import RESULT, soak_seconds, soak_seed
from tests.faults.soak_run.accidents import Step, accidents
from tests.faults.soak_run.clerks import clerks_working
from tests.faults.soak_run.company import Company, company_working
from tests.faults.soak_run.eraser import customers_erased
from tests.faults.soak_run.killer import Killer
from tests.faults.soak_run.observer import stores_observed
from tests.faults.soak_run.proof import found_wrong, gathered
from tests.faults.soak_run.result import result_of, write_result
from tests.faults.soak_run.servers import servers_running
from tests.faults.soak_run.settling import products_own_findings, wait_until_all_is_settled


@pytest.mark.soak
def test_company_survives_everything_at_once(tmp_path: Path) -> None:
    """No customer, no sale and no number is lost or doubled; no process ends by itself; memory stays flat."""
    seed, seconds = soak_seed(), soak_seconds()
    rng = random.Random(seed)
    with servers_running() as servers:
        with company_working(servers, tmp_path) as company:
            scene, tills = company.scene, company.tills
            with (
                clerks_working(tills, seed) as books,
                customers_erased(scene, tills, seed) as eraser,
                stores_observed(tills, scene.journal),
            ):
                _harm(company, Killer(company=company, rng=rng), accidents(rng), seconds)
            wait_until_all_is_settled(company)
            own_findings = products_own_findings(company)
        evidence = gathered(company)
    found = [*own_findings, *found_wrong(company, books, eraser.erased, evidence)]
    document = result_of(company, books, evidence, found, seed=seed, seconds=round(seconds))
    print(document)
    assert found == [], "\n".join(found)
    file = os.environ.get(RESULT)
    if file:
        write_result(Path(file), document)


def _harm(company: Company, killer: Killer, steps: list[Step], seconds: float) -> None:
    """Do harm for this time, with the steps of the accidents at equal distances; they take their own time."""
    rages = len(steps) + 1
    for step in (*steps, None):
        killer.rage_until(time.monotonic() + seconds / rages)
        if step is not None:
            step(company)
