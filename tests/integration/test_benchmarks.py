"""The benchmarks run and say what they measured; no test asks how fast anything was."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

from benchmarks.customers import events, snapshots
from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract
from tenten.rules.customer_rules_columns import passes_fast_path

ROOT = Path(__file__).parents[2]


def test_smallest_benchmark_reports_subject_limit_ratio_memory_and_settings(tmp_path: Path) -> None:
    """One bar at the small scale, with servers of its own, gives the table and the JSON with everything measured."""
    # given
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--only", "P8", "--scale", "small", "--output", str(file)]

    # when
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    # then
    assert done.returncode == 0, done.stderr
    assert "P8" in done.stdout
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["machine"].keys() >= {"cores", "memory_gib", "python", "kafka", "postgresql", "sqlite", "packages"}
    assert found["not_run"] == {}
    assert [(bar["bar"], bar["settings"]["database"]) for bar in found["bars"]] == [
        ("P8", "postgresql"),
        ("P8", "sqlite"),
    ]
    for bar in found["bars"]:
        assert bar["scale"] == "small"
        assert bar["unit"] == "k/s"
        assert bar["subject"] > 0
        assert bar["limit"] > 0
        assert bar["ratio"] > 0
        assert bar["at_least"] == 0.4
        assert bar["memory_mib"] >= 0
        assert bar["runs"]["subject"] == [bar["subject"]]
        assert bar["settings"]["rows"] == 5_000
        assert bar["settings"]["limit: producer"]["acks"] == "all"
    assert str(tmp_path) not in json.dumps(found)


def test_benchmark_customers_are_valid_and_each_is_another() -> None:
    """The synthetic events and snapshots pass the product's own decoding and rules, and no two share an id."""
    # given
    made = {
        "CustomerEvent": list(events(2_000)),
        "Customer": list(snapshots(2_000, 2)),
    }

    for name, records in made.items():
        # when
        keys, values = [record.key for record in records], [record.value for record in records]
        decoded = decode_batch(contract(name), keys, values, WriterSchemas(), value_bytes_max=10_000)

        # then
        assert decoded.unreadable == ()
        assert decoded.frame.height == 2_000
        assert passes_fast_path(decoded.frame).all()
        assert len(set(keys)) == 2_000
        contacts = decoded.frame["customer"].struct.field("contacts").explode().struct.field("contact_id")
        assert contacts.n_unique() == len(contacts)


def test_benchmark_customers_are_the_same_for_the_same_seed() -> None:
    """Two runs of the same benchmark measure the same bytes, and a warm-up has customers of its own."""
    # given / when
    first, again, other = (list(islice(events(500, seed=seed), 500)) for seed in (1010, 1010, 7))

    # then
    assert first == again
    assert {record.key for record in first}.isdisjoint(record.key for record in other)
    assert [record.key for record in first] == sorted(record.key for record in first)
