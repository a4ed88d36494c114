"""deploy/prometheus/alerts.yml and deploy/grafana/tenten.json: every expression is about metrics that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from tenten.runtime.metrics import METRICS

ROOT: Final = Path(__file__).parents[2]
ALERTS: Final = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
DASHBOARD: Final = json.loads((ROOT / "deploy/grafana/tenten.json").read_text())
RULES: Final = [rule for group in ALERTS["groups"] for rule in group["rules"]]

TARGET: Final = {"job", "instance"}
"""The labels that Prometheus adds to everything that it reads."""


def labels_by_sample() -> dict[str, set[str]]:
    """The labels of every sample that a process serves."""
    found: dict[str, set[str]] = {}
    for name, metric in METRICS.items():
        if metric.kind == "histogram":
            found[f"{name}_bucket"] = {*metric.labels, *TARGET, "le"}
            found[f"{name}_count"] = found[f"{name}_sum"] = {*metric.labels, *TARGET}
        else:
            found[name] = {*metric.labels, *TARGET}
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set(TARGET)).update(sample.labels)
    return found


SAMPLES: Final = labels_by_sample()


def check(node: Any) -> set[str]:
    """The labels that the series of an expression can have. Fails for an unknown metric or label."""
    match node:
        case promql_parser.VectorSelector():
            assert node.name in SAMPLES, node.name
            known = SAMPLES[node.name]
            assert {matcher.name for matcher in node.matchers.matchers} <= known, node.prettify()
            return known
        case promql_parser.MatrixSelector(vector_selector=inner) | promql_parser.ParenExpr(expr=inner):
            return check(inner)
        case promql_parser.AggregateExpr():
            known, kept = check(node.expr), set(node.modifier.labels if node.modifier else ())
            assert kept <= known, node.prettify()
            return kept
        case promql_parser.Call():
            if node.func.name == "histogram_quantile":
                assert "le" in check(node.args[1]), node.prettify()
            return set().union(*map(check, node.args))
        case promql_parser.BinaryExpr():
            return check(node.lhs) | check(node.rhs)
        case promql_parser.NumberLiteral():
            return set()
    pytest.fail(f"an expression of an unknown kind: {node}")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_is_about_metrics_that_exist_and_names_their_labels(rule: dict[str, Any]) -> None:
    """Its expression can be parsed, its texts use labels that its series have, and its page and command exist."""
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    labels = check(promql_parser.parse(rule["expr"]))
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels
    for page in re.findall(r"docs/[\w./-]+\.md", texts):
        assert (ROOT / page).exists(), page
    assert rule["annotations"].keys() == {"summary", "runbook"}


def test_alerts_have_names_of_their_own() -> None:
    """One is never mistaken for another."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def expressions(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The expressions of a panel with their legends."""
    for target in panel["targets"]:
        yield target["expr"], target["legendFormat"]


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_panel_is_about_metrics_that_exist(panel: dict[str, Any]) -> None:
    """Its expressions can be parsed, and its legend uses labels that their series have."""
    for expression, legend in expressions(panel):
        labels = check(promql_parser.parse(expression))
        assert set(re.findall(r"{{(\w+)}}", legend)) <= labels, legend


def test_dashboard_shows_every_metric_of_the_catalogue() -> None:
    """A new metric gets its panel; panels have ids of their own and do not overlap."""
    shown = " ".join(expression for panel in DASHBOARD["panels"] for expression, _ in expressions(panel))
    used = set(re.findall(r"\w+", shown))
    stems = {word.removesuffix("_bucket") for word in used}
    assert METRICS.keys() - stems - {"tenten_http_request_seconds", *ALERTED} == set()
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


ALERTED: Final = {
    "tenten_channel_suspended",
    "tenten_held_oldest_seconds",
    "tenten_statement_oldest_blocked_seconds",
    "tenten_transactions_oldest_waiting_seconds",
}
"""Ages that only alerts look at."""


def test_ages_that_the_dashboard_leaves_out_have_alerts() -> None:
    """No metric is looked at by nobody."""
    assert set(re.findall(r"\w+", " ".join(rule["expr"] for rule in RULES))) >= ALERTED
