"""The checker after accidents: it allows what a restored database and a recreated topic cost, and nothing else."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel
from tests.faults import checker
from tests.faults.avro import decode
from tests.faults.evidence import Evidence, Record
from tests.faults.test_checker import SETTING
from tests.faults.traffic import Store
from tests.faults.world import World


@pytest.fixture
def world(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> World:
    """A clean history, all of it written; the next account number is one later than it could be."""
    channel = tmp_path / "houston.db"
    engine = open_database(f"sqlite:///{channel}")
    upgrade_channel(engine)
    engine.dispose()
    store = Store(channel_id="houston", legal_entity="usrt", rng=random.Random(7))
    clean = World(bootstrap_servers, prefix, headquarters_url, channel, store)
    clean.live()
    clean.next_number += 1
    clean.write()
    return clean


def test_recreated_topics_and_holes_are_judged_with_what_was_before(world: World) -> None:
    """Replies and versions of deleted topics count; a number may be missing only if `recover` has named it."""
    # given
    evidence = world.gather()
    known = replace(SETTING, holes={"usrt": [4]})

    def violated(changed: Evidence, setting: checker.Setting = known) -> list[str]:
        return checker.violations(changed, world.journal, setting)

    # then
    assert violated(evidence) == []
    assert violated(evidence, SETTING) == ["I3: the continuous sequence of usrt lacks [4] of its 4 numbers"]
    assert violated(evidence, replace(SETTING, holes={"usrt": [3, 4]})) == [
        "I3: nobody has [3] of usrt, as was said, and now somebody does"
    ]

    # given: the replies were on a topic that was deleted
    replies = evidence.committed["channel-replies"]
    without = replace(evidence, committed={**evidence.committed, "channel-replies": ()})
    # then
    assert violated(replace(without, earlier={"channel-replies": replies})) == []
    assert any(found.startswith("replies: no reply to houston") for found in violated(without))

    # given: every customer was sent again to the next topic
    customers = evidence.committed["customers"]
    sent_again = {**evidence.committed, "customers": tuple(_last_of_each_key(customers))}
    # then
    recreated = replace(evidence, channels={}, committed=sent_again, earlier={"customers": customers})
    assert violated(recreated) == []

    # given: one of them in its first version, and one that was erased
    first = {record.key: record for record in reversed(customers)}
    older = replace(recreated, committed={**evidence.committed, "customers": tuple(first.values())})
    # then
    found = violated(older)
    assert any("goes back from version 2 to 1" in sentence for sentence in found)
    assert any("revives the erased customer" in sentence for sentence in found)


def _last_of_each_key(records: Iterable[Record]) -> Iterable[Record]:
    last = {record.key: record for record in records}
    assert any(record.value is not None and decode("Customer", record.value)["version"] > 1 for record in last.values())
    return last.values()
