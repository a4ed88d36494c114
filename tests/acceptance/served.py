"""What real processes serve over HTTP."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.cli import Tenten
from tests.forked import ended_with_block, fork
from tests.waiting import wait_for

ANSWER_SECONDS: Final = 60.0


@contextmanager
def serving(tenten: Tenten, *words: str, **environment: str) -> Iterator[httpx.Client]:
    """Run a command with `--http` at a free port during the block; a client of what it serves."""
    log = tenten.directory / f"{'-'.join(words)}.log"
    variables = tenten.environment_with(environment)
    started = fork((*words, "--http", "127.0.0.1:0"), directory=tenten.directory, log=log, environment=variables)
    with ended_with_block(started) as process:
        wait_for(lambda: address_in(log) is not None or process.poll() is not None, f"an address in {log}")
        with httpx.Client(base_url=f"http://{address_in(log)}", timeout=ANSWER_SECONDS) as client:
            yield client


def address_in(log: Path) -> str | None:
    """The address at which the process of this log serves HTTP."""
    found = re.search(r"event=http_started address=(\S+)", log.read_text())
    return None if found is None else found[1]


class Scrape:
    """An answer of `/metrics`."""

    def __init__(self, client: httpx.Client) -> None:
        answer = client.get("/metrics")
        assert answer.status_code == 200, answer.text
        self.labels: dict[str, set[str]] = defaultdict(set)
        """The labels by name of the metric, without `le`."""
        self.names: set[str] = set()
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
        for family in text_string_to_metric_families(answer.text):
            self.names.add(family.name + ("_total" if family.type == "counter" else ""))
            for sample in family.samples:
                self.labels[sample.name] |= sample.labels.keys() - {"le"}
                self._samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that have these labels; None without any."""
        found = [value for key, value in self._samples[name].items() if labels.items() <= dict(key).items()]
        return sum(found) if found else None


def has(client: httpx.Client, name: str, value: float, labels: Mapping[str, str]) -> bool:
    """Whether a metric has a value at the moment."""
    return Scrape(client).value(name, **labels) == value
