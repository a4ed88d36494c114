"""The benchmarks run and say what they measured; no test asks how fast anything was."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import pictures
from benchmarks.__main__ import measure, wanted_bars
from benchmarks.cpu import KAFKA, SHARED_POSTGRESQL, Sample, Use, spent
from benchmarks.customers import events, snapshots
from benchmarks.measuring import TINY
from benchmarks.report import Report
from benchmarks.servers import Servers
from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract
from tenten.rules.customer_rules_columns import passes_fast_path

Measured = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def measured(bootstrap_servers: str, postgresql: str, tmp_path: Path) -> Measured:
    """Runs benchmarks in the smallest size on the servers of the tests; returns the rows of the file of results."""
    servers = Servers(bootstrap_servers=bootstrap_servers, postgresql=postgresql, directory=tmp_path)

    def run(*bars: str) -> list[dict[str, Any]]:
        file = tmp_path / "results.json"
        assert measure(servers, TINY, frozenset(bars), Report(file, servers, TINY), Console(stderr=True))
        found = json.loads(file.read_text(encoding="utf-8"))
        assert found["machine"].keys() >= {"cores", "memory_gib", "python", "kafka", "postgresql", "sqlite", "packages"}
        assert str(tmp_path) not in json.dumps(found)
        rows: list[dict[str, Any]] = found["bars"]
        return rows

    return run


def test_relay_is_measured_with_limit_ratio_memory_and_settings(measured: Measured) -> None:
    """P8 has a row for each database, with everything that was measured."""
    # when
    rows = measured("P8")

    # then
    assert [(row["bar"], row["settings"]["database"]) for row in rows] == [("P8", "postgresql"), ("P8", "sqlite")]
    for row in rows:
        assert row["scale"] == "tiny"
        assert row["unit"] == "k/s"
        assert row["subject"] > 0
        assert row["limit"] > 0
        assert row["ratio"] > 0
        assert row["at_least"] == 0.4
        assert row["memory_mib"] >= 0
        assert row["runs"]["subject"] == [row["subject"]]
        assert row["settings"]["rows"] == 500
        assert row["settings"]["limit: producer"]["acks"] == "all"


def test_create_is_measured_by_what_the_store_has_written(measured: Measured) -> None:
    """P7 has median, 99th percentile, CPU by kind of process with the rate reached, and idle CPU."""
    # when
    median, percentile, cpu, idle = measured("P7")

    # then
    assert 0 < median["subject"] <= percentile["subject"]
    assert (median["at_most"], percentile["at_most"], cpu["at_most"]) == (15, 45, 12)
    assert median["details"] == {"creates a second": 100, "percentile": 50}
    shown = cpu["details"]["shown"]
    assert shown["CPU ms a create"].keys() >= {"tills", "channel processes", "headquarters worker"}
    assert shown["run-queue wait ms a create"].keys() == shown["CPU ms a create"].keys()
    assert 0 < shown["creates a second, reached"] < 120
    assert shown["machine busy with other programs"] in {True, False}
    assert idle["unit"] == "ms/s"


@pytest.mark.soak
def test_changes_of_workers_are_measured(measured: Measured) -> None:
    """P11 has the longest wait for a worker that joins, leaves and is killed."""
    # when
    rows = measured("P11")

    # then
    assert [row["what"].rpartition("worker ")[2] for row in rows] == ["joins", "leaves", "is killed"]
    assert all(row["subject"] > 0 and row["unit"] == "s" for row in rows)


@pytest.mark.soak
def test_costs_of_channels_and_batches_are_measured(measured: Measured) -> None:
    """S1 and S2 have a point for each size with the real size of its batches; C1 and C2 have their counts."""
    # when
    connections, offset_records, delivered, *curves = measured("S1", "S2", "C1", "C2")

    # then
    assert connections["unit"] == offset_records["unit"] == "a minute"
    assert delivered["settings"]["replicas"] == 5
    assert [curve["details"]["where"] for curve in curves] == ["headquarters", "a channel on SQLite"]
    for curve in curves:
        single, several = curve["details"]["curve"]
        assert (single["size"], single["batch"]) == (1, 1.0)
        # A busy machine reads a transaction in parts.
        assert several["size"] == 17
        assert 1 < several["batch"] <= 17


def test_resync_is_measured_with_memory_and_a_clerk(measured: Measured) -> None:
    """P4 has the rates of both resyncs and the memory, P10 the longest write."""
    # when
    into_empty, over_equal, memory, write = measured("P4", "P10")

    # then
    assert (into_empty["settings"]["customers"], into_empty["against"]) == (200, "executemany of the same rows")
    assert over_equal["limit"] == into_empty["subject"]
    assert memory["subject"] > 20
    assert write["unit"] == "ms"
    assert write["subject"] > 0


def test_ways_out_are_measured_with_memory(measured: Measured) -> None:
    """A1 to A3 have the rate and the memory of each command; the customers recovered are those of the topic."""
    # when
    rows = measured("A1", "A2", "A3")

    # then
    assert [(row["bar"], row["unit"]) for row in rows] == [
        (bar, unit) for bar in ("A1", "A2", "A3") for unit in ("k/s", "MiB")
    ]
    assert all(row["subject"] > 0 for row in rows)


def test_bars_are_named_in_any_case_and_unknown_ones_refused() -> None:
    """`--only` takes names as `P7a` or `p7A`."""
    # given / when / then
    assert wanted_bars("p7A, o1") == {"P7a", "O1"}
    with pytest.raises(Exception, match="known are"):
        wanted_bars("P7,P99")


def test_later_run_replaces_the_bars_that_it_measures(tmp_path: Path, bootstrap_servers: str, postgresql: str) -> None:
    """The file keeps what a run does not measure, and what could not be measured."""
    # given
    file = tmp_path / "results.json"
    file.write_text(
        json.dumps({"bars": [{"bar": "P1"}, {"bar": "P10"}], "not_run": {"P3": "no Maven", "P2": "failed"}})
    )
    servers = Servers(bootstrap_servers=bootstrap_servers, postgresql=postgresql, directory=tmp_path)

    # when
    report = Report(file, servers, TINY)
    report.add(frozenset({"P2", "P10"}), [])
    report.not_run(frozenset({"P4"}), "failed")

    # then
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["bars"] == [{"bar": "P1"}]
    assert found["not_run"] == {"P3": "no Maven", "P4": "failed"}


def test_backends_that_end_count_once() -> None:
    """PostgreSQL counts an ended backend's whole life among its children; only its end belongs to the measurement."""
    # given
    before = {
        1: Use(SHARED_POSTGRESQL, 1.0, {1: 0}),
        2: Use("stores' PostgreSQL", 3.0, {2: 0}),
        9: Use(KAFKA, 5.0, {9: 0}),
    }
    after = {1: Use(SHARED_POSTGRESQL, 4.5, {1: 2_000_000}), 9: Use(KAFKA, 6.0, {9: 0, 10: 1_000_000})}

    # when
    used = spent(
        Sample(at=10.0, uses=before, machine_seconds=100.0), Sample(at=12.0, uses=after, machine_seconds=102.0)
    )

    # then
    assert used.cpu_ms == {SHARED_POSTGRESQL: 500.0, KAFKA: 1000.0}
    assert used.waited_ms == {SHARED_POSTGRESQL: 2.0, KAFKA: 1.0}
    assert used.others_ms_a_second == 250.0
    assert used.busy


def test_pictures_show_what_was_measured() -> None:
    """A curve for each place, and two bars for each rate with their goals."""
    # given
    table = {"title": "", "columns": ["size", "real size", "without Kafka"], "rows": [[1, 1, 1400], [100, 100, 50]]}
    curve = {"bar": "S1", "details": {"curve": [], "where": "headquarters", "tables": [table]}}
    bars = [
        {"bar": "P7", "subject": value, "at_most": 45, "details": {"creates a second": 100, "percentile": percent}}
        for percent, value in ((50, 14.2), (99, 43.1))
    ]

    # when
    costs, milliseconds = pictures.batch_sizes([curve]), pictures.latency(bars)

    # then
    assert costs.count("<polyline") == 1
    assert costs.count("<circle") == 2
    assert ">headquarters<" in costs
    assert milliseconds.count("<rect") == 3
    assert ">43.1<" in milliseconds
    assert "not measured yet" not in costs + milliseconds


def test_creates_through_http_are_measured_against_the_python_api(measured: Measured) -> None:
    """W1 has the time of a create, and its CPU beyond that of the Python API."""
    # when
    rows = measured("W1")

    # then
    assert [(row["unit"], row["limit"] is None, row["at_most"]) for row in rows] == [
        ("ms", True, 5.556),
        ("ms", False, 3.5),
    ]
    assert all(row["runs"]["subject"] for row in rows)


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


def test_joining_and_a_change_of_settings_are_measured(measured: Measured) -> None:
    """J1 has rate and memory; J2 the last channel and half of them."""
    # when
    joined, memory, *reached = measured("J1", "J2")

    # then
    assert (joined["settings"]["customers"], memory["unit"]) == (200, "MiB")
    assert joined["limit"] > 0
    last, half = (row["subject"] for row in reached)
    assert 0 < half <= last


def test_signatures_are_measured_against_the_same_without(measured: Measured) -> None:
    """R1 and R2 run headquarters and stores with every record signed and checked."""
    # when
    rows = measured("R1", "R2")

    # then
    assert [(row["bar"], row["unit"]) for row in rows] == [("R1", "k/s"), ("R2", "ms"), ("R2", "ms")]
    assert all(row["subject"] > 0 and row["limit"] > 0 and row["ratio"] > 0 for row in rows)
