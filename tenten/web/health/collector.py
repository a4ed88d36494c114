"""The metrics of this process in the format of Prometheus.

Counts are in memory. Lag and ages are read when somebody asks, each server in a thread of its own and for a limited
time: an answer never waits longer, and never fails, because a broker or a database is away. Then what is read there is
absent, and `tenten_scrape_problem` is 1. A server that does not answer is not asked a second time meanwhile.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from structlog import get_logger

from tenten.runtime import counting
from tenten.runtime.error_codes import error_code
from tenten.runtime.metrics import METRICS, Metric, ProcessKind
from tenten.runtime.release import release
from tenten.status.side_by_side import NoAnswer, Question
from tenten.web.health.reads import Read, Sample

log = get_logger(__name__)

ANSWER_SECONDS: Final = 2.0
"""How long all servers together may take."""

FRESH_SECONDS: Final = 5.0
"""How long an answer is used again: several may ask, and often."""

_INFINITY: Final = "+Inf"


class CachedRead:
    """What one server tells, asked at most once at a time and not again while the last answer is fresh."""

    def __init__(self, about: str, read: Read) -> None:
        self.about = about
        self._read = read
        self._lock = Lock()
        self._question: Question[Sequence[Sample]] | None = None
        self._samples: Sequence[Sample] | None = None
        self._stale_at = 0.0
        self._is_failure_logged = False

    def begin(self) -> None:
        """Ask, unless the last answer is fresh or still awaited."""
        with self._lock:
            if self._question is None and time.monotonic() >= self._stale_at:
                self._question = Question(self._read)

    def samples(self, until: float) -> Sequence[Sample] | None:
        """The answer; None if there is none until then (`time.monotonic`)."""
        with self._lock:
            question = self._question
        if question is None:
            return self._samples
        answer = question.answer(until)
        if isinstance(answer, NoAnswer):
            return None
        with self._lock:
            if self._question is question:
                self._question, self._stale_at = None, time.monotonic() + FRESH_SECONDS
                self._samples = None if isinstance(answer, Exception) else answer
                self._log(answer)
        return None if isinstance(answer, Exception) else answer

    def _log(self, answer: Sequence[Sample] | Exception) -> None:
        """Log a failure once per outage."""
        is_failure = isinstance(answer, Exception)
        if isinstance(answer, Exception) and not self._is_failure_logged:
            log.warning("metrics_not_read", about=self.about, error=type(answer).__name__, code=error_code(answer))
        self._is_failure_logged = is_failure


class TentenCollector(Collector):
    """The metrics of the catalogue that this kind of process serves."""

    def __init__(self, kind: ProcessKind, process: str, reads: Sequence[CachedRead]) -> None:
        self._served = {name: metric for name, metric in METRICS.items() if kind in metric.served_by}
        self._process = process
        self._reads = reads

    def collect(self) -> Iterable[Family]:
        """Every family, also those without a sample."""
        samples: dict[str, dict[counting.Labels, float]] = {
            "tenten_build_info": {(release(), self._process): 1},
            "tenten_scrape_problem": {(read.about,): 0 for read in self._reads},
        }
        until = time.monotonic() + ANSWER_SECONDS
        for read in self._reads:
            read.begin()
        for read in self._reads:
            found = read.samples(until)
            if found is None:
                samples["tenten_scrape_problem"][(read.about,)] = 1
            for sample in found or ():
                samples.setdefault(sample.name, {})[sample.labels] = sample.value
        for name, metric in self._served.items():
            yield _family(name, metric, samples.get(name) or counting.numbers(name))


def _family(name: str, metric: Metric, values: Mapping[counting.Labels, float]) -> Family:
    """A metric with its values."""
    if metric.kind == "histogram":
        return _histogram(name, metric)
    if metric.kind == "counter":
        counter = CounterMetricFamily(name, metric.meaning, labels=metric.labels)
        for labels, value in values.items() or _zero(metric):
            counter.add_metric(labels, value)
        return counter
    gauge = GaugeMetricFamily(name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        gauge.add_metric(labels, value)
    return gauge


def _zero(metric: Metric) -> list[tuple[counting.Labels, float]]:
    """A counter without labels begins with 0, so that its first increase is seen."""
    return [] if metric.labels else [((), 0)]


def _histogram(name: str, metric: Metric) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, metric.meaning, labels=metric.labels)
    for labels, found in counting.durations(name).items():
        family.add_metric(labels, list(_cumulated(metric.buckets, found.buckets)), sum_value=found.seconds)
    return family


def _cumulated(bounds: Sequence[float], buckets: Sequence[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, observations in zip((*map(str, bounds), _INFINITY), buckets, strict=True):
        total += observations
        yield bound, total


def registry_of(kind: ProcessKind, process: str, reads: Sequence[CachedRead]) -> CollectorRegistry:
    """Everything that this process serves; it counts from now on."""
    counting.start()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(TentenCollector(kind, process, reads))
    return registry
