"""Scenario 26 of the fault plan: ends of day that race late sales, and close the same day repeatedly.

Lists and sales arrive in any order, at two workers of headquarters, with rebalances in between.
"""

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.faults.checker import violations
from tests.faults.evidence import gather
from tests.faults.settled import wait_until_settled
from tests.sales import Till, Transaction, send
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene, set_scene

CLOSES: Final = 8
"""Ends of the same day, of each channel, in each of two rounds."""


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own; small batches, so that workers meet."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, limits={"batch_records_max": 3})


def day(rng: random.Random, till: Till) -> tuple[list[Transaction], list[Transaction]]:
    """Sales, and ends of their day, which list open sales, some already on another list; some are repeated."""
    sales: list[Transaction] = []
    ends: list[Transaction] = []
    for _ in range(CLOSES):
        sales += [till.sale(("TEA", str(rng.randrange(1, 9)), "1.15")) for _ in range(rng.randrange(4))]
        again = rng.sample(sales, min(len(sales), rng.randrange(3)))
        listed = {sale["transaction_id"]: sale for sale in (*till.open, *again)}
        ends.append(till.end_of_day([*listed.values()]))
        # A sale that stays open is listed by the next end of day, too.
        till.open = till.open[-1:] if rng.random() < 0.3 else []
        ends += [rng.choice(ends)] if rng.random() < 0.3 else []
    return sales, ends


def send_racing(scene: Scene, lanes: Sequence[Sequence[Transaction]]) -> None:
    """Send every lane in its own order, all at the same time, in small parts."""

    def drive(lane: Sequence[Transaction]) -> None:
        for at in range(0, len(lane), 2):
            send(scene, *lane[at : at + 2])

    with ThreadPoolExecutor(len(lanes)) as threads:
        list(threads.map(drive, lanes))


def test_each_sale_is_in_one_statement_when_days_are_closed_early_and_repeatedly(scene: Scene) -> None:
    """Lists before, after and among their sales, on two lists, or on none: each is posted once, to the cent."""
    # given
    rng = random.Random(26)
    tills = [Till(channel_id=name, rng=rng) for name in LEGAL_ENTITY_BY_CHANNEL]

    # when
    with scene.transactions():
        send_racing(scene, [lane for till in tills for lane in day(rng, till)])
        with scene.transactions():
            send_racing(scene, [lane for till in tills for lane in day(rng, till)])
        forgotten = [till.sale() for till in tills]
        send(scene, *forgotten, *(till.end_of_day([]) for till in tills))
        wait_until_settled(scene, "transactions", released=True)

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    sales = evidence.headquarters.sales
    posted = Counter(str(line["transaction_id"]) for line in sales.statement_lines)
    assert posted == Counter(sales.transactions.keys())
    assert {str(entry["transaction_id"]) for entry in sales.listed if not entry["owned"]} != set()
    assert [row for row in sales.statements.values() if row["kind"] == "adjustment"] != []


def test_day_sent_by_two_relays_at_once_is_one_statement_per_end(scene: Scene) -> None:
    """Sales and ends of day are sent twice, by two writers, while two workers share the channels."""
    # given
    rng = random.Random(27)
    tills = [Till(channel_id=name, rng=rng) for name in LEGAL_ENTITY_BY_CHANNEL]
    lanes = [day(rng, till) for till in tills]

    # when
    with scene.transactions(), scene.transactions():
        send_racing(scene, [[*sales, *ends] for sales, ends in lanes for _ in range(2)])
        wait_until_settled(scene, "transactions", released=True)

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
