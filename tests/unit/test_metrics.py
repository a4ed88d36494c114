"""The catalogue of metrics and the code agree; `/metrics` answers whatever its servers do."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tenten.runtime.metrics import METRICS
from tenten.web.health.collector import CachedRead, registry_of
from tenten.web.health.reads import Sample
from tests.waiting import wait_for

ROOT: Final = Path(__file__).parents[2]
CALLS: Final = {"count": "counter", "set_gauge": "gauge", "observe": "histogram", "Sample": "read"}


class Use(NamedTuple):
    """A place of the code that gives a metric a value."""

    place: str
    kind: str
    name: str
    labels: int


def uses() -> Iterator[Use]:
    """Every call that counts, observes, sets or reads a metric."""
    for directory in ("tenten", "producers", "consumers"):
        for file in (ROOT / directory).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id=call), args=[ast.Constant(value=str(name)), _, *labels]) if (
                        call in CALLS and name.startswith(("tenten_", "kafka_"))
                    ):
                        is_tuple = call == "Sample" and labels and isinstance(labels[0], ast.Tuple)
                        number = len(labels[0].elts) if is_tuple else len(labels)  # type: ignore[attr-defined]  # a tuple
                        yield Use(f"{file.relative_to(ROOT)}:{node.lineno}", CALLS[call], name, number)


def test_catalogue_has_the_metrics_of_the_code_with_their_labels() -> None:
    """Every name in the code is declared with this type and as many labels, and every declared one is used."""
    # given
    found = list(uses())

    # then
    for use in found:
        metric = METRICS[use.name]
        assert use.kind == ("read" if metric.read else metric.kind), use
        assert use.labels == len(metric.labels), use
    served_by_the_collector = {"tenten_build_info", "tenten_scrape_problem"}
    assert {use.name for use in found} | served_by_the_collector == METRICS.keys()


def test_no_metric_has_a_label_for_a_customer() -> None:
    """The labels are those that cannot grow with customers, and names follow the rules of Prometheus."""
    allowed = {
        *("version", "process", "about", "part", "method", "route", "status", "consumergroup", "topic", "partition"),
        *("reason", "code", "outcome", "legal_entity", "channel"),
    }
    for name, metric in METRICS.items():
        assert allowed.issuperset(metric.labels), name
        assert (metric.kind == "counter") is name.endswith("_total"), name
        assert bool(metric.buckets) is (metric.kind == "histogram"), name


def test_a_server_that_never_answers_is_asked_once_and_its_metrics_are_absent() -> None:
    """The answer comes all the same, says what is missing, and has the values again when the server is back."""
    # given
    asked, is_back = [], Event()

    def hangs() -> list[Sample]:
        asked.append(1)
        is_back.wait()
        return [Sample("tenten_outbox_unsent", 7)]

    def fails() -> list[Sample]:
        raise ConnectionError

    hanging = CachedRead("database", hangs)
    registry = registry_of("channel", "houston", [hanging, CachedRead("broker", fails)])

    # when
    first, second = values(registry), values(registry)

    # then
    assert first["tenten_scrape_problem"] == second["tenten_scrape_problem"] == {"database": 1, "broker": 1}
    assert "tenten_outbox_unsent" not in first
    assert first["tenten_outbox_sent_total"] == {"": 0}
    assert len(asked) == 1

    # when
    is_back.set()

    # then
    wait_for(lambda: values(registry)["tenten_scrape_problem"]["database"] == 0, "the answer of the database")
    assert values(registry)["tenten_outbox_unsent"] == {"": 7}


def values(registry: object) -> dict[str, dict[str, float]]:
    """The samples of a scrape: by name, then by the values of their labels."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):  # type: ignore[arg-type]  # a registry
        for sample in family.samples:
            found[sample.name][",".join(sample.labels.values())] = sample.value
    return found
