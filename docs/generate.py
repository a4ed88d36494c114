"""Writes the pages of `docs/reference/` from the catalogues in the code: `python docs/generate.py`, or
`python -m docs.generate` where tenten is not installed.

tests/acceptance/test_documentation.py compares the pages in the repository with the generated ones.
"""

import ast
import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Final

from docs.command_pages import command_page, settings_page
from docs.contract_pages import asyncapi, http_page, openapi, table_page
from docs.pages import codes, page, table
from tenten import workers
from tenten.cli import exit_codes
from tenten.consumers.headquarters.dead_letters import DEAD_LETTER_HEADERS
from tenten.rules.reason_codes import REASON_CODES
from tenten.rules.unreadable_reasons import UNREADABLE_REASONS
from tenten.runtime.log_events import LOG_EVENTS
from tenten.runtime.metrics import METRICS
from tenten.schemas import privileges, topics

REFERENCE: Final = Path(__file__).parent / "reference"
SOAK_RESULT: Final = Path(__file__).parents[1] / "tests" / "faults" / "soak_result.json"


def reason_codes() -> str:
    """Every `code` of a reason."""
    rows = [(f"`{reason.code}`", reason.meaning, reason.remedy) for reason in REASON_CODES.values()]
    text = (
        'A reason is `{"field", "code", "text"}`: in rejections that a store shows, in the columns `reasons` of both '
        "databases, and in the output of commands with `--json`. Programs should use `code`; `text` is for people."
    )
    return page("Reason codes", "tenten/rules/reason_codes.py", text, table(("code", "meaning", "remedy"), rows))


def exit_code_page() -> str:
    """Every exit code of the command line, with the docstring of its constant."""
    module = ast.parse(Path(exit_codes.__file__).read_text(encoding="utf-8"))
    rows = [("0", "Success. A process that SIGTERM stopped has drained and committed.")]
    for constant, docstring in pairwise(module.body):
        match constant, docstring:
            case ast.AnnAssign(value=ast.Constant(value=int(code))), ast.Expr(value=ast.Constant(value=str(text))):
                rows.append((str(code), " ".join(text.split())))
    return page("Exit codes", "tenten/cli/exit_codes.py", table(("code", "meaning"), rows))


def topic_page() -> str:
    """Every topic with its configuration."""
    rows = [
        (
            f"`{topic.name}`",
            topic.key,
            topic.value,
            "`partitions` of the settings" if topic.partitions is None else str(topic.partitions),
            codes(f"{name}={value}" for name, value in sorted(topic.configuration.items())),
            codes(worker.name for worker in workers.ALL if topic in worker.writes),
            codes(worker.name for worker in workers.ALL if topic in worker.inputs),
        )
        for topic in topics.ALL
    ]
    text = (
        "`tenten topics apply` creates these topics and corrects their settings. Every name carries the `prefix` of "
        "the settings. Workers are those of [processes](processes.md). 14 days are "
        f"{14 * topics.DAY_MS} ms, 30 days {30 * topics.DAY_MS} ms."
    )
    columns = ("topic", "key", "value", "partitions", "configuration", "written by", "read by")
    return page("Topics", "schemas/topics.py and tenten/workers.py", text, table(columns, rows))


def privilege_page() -> str:
    """Every privilege of each role, and the quotas of channels."""
    rows = [
        (
            role.value,
            privilege.resource.value,
            f"`{privilege.name}{'*' if privilege.is_prefix else ''}`",
            ", ".join(sorted(privilege.operations)),
        )
        for role in topics.Role
        for privilege in privileges.privileges(role, "NAME")
    ]
    text = (
        "What Kafka must allow each role, and nothing else; `tenten topics acls` prints and creates the access control "
        "lists for the channels of an installation ([secure Kafka](../how-to/secure-kafka.md)). Every name carries the "
        "`prefix` of the settings; `*` stands for any ending. Whoever may READ or WRITE may also DESCRIBE."
    )
    quota = asdict(privileges.CHANNEL_QUOTA)
    return page(
        "Privileges",
        "schemas/topics.py and schemas/privileges.py",
        text,
        table(("role", "resource", "name", "operations"), rows),
        "## Quotas",
        "Of the user of each channel, at each broker. Headquarters needs none.",
        table(("quota", "value"), [(f"`{name}`", str(value)) for name, value in quota.items()]),
    )


def process_page() -> str:
    """Every worker with its command, group, topics and failpoints."""
    rows = [
        (
            f"`{worker.name}`",
            f"`{' '.join(('tenten', *worker.command, *(['NAME'] if worker in workers.IN_CHANNEL else [])))}`",
            f"{worker.sentence}.",
            "-" if worker.group is None else f"`{worker.group_of('NAME')}`",
            codes(topic.name for topic in worker.inputs),
            codes(topic.name for topic in worker.writes),
        )
        for worker in workers.ALL
    ]
    points = [(f"`{worker.name}`", codes(worker.failpoints)) for worker in workers.ALL]
    points.append(("a till, or any program that writes a clerk's change", codes(workers.STORE_FAILPOINTS)))
    channel = codes(worker.name for worker in workers.IN_CHANNEL)
    return page(
        "Processes and failpoints",
        "tenten/workers.py",
        f"`tenten channel run NAME` runs {channel} in one process; settlement and distribution share a loop.",
        table(("worker", "command", "purpose", "consumer group", "reads", "writes"), rows),
        "## Failpoints",
        "For tests: `TENTEN_FAILPOINT=name[@n]` makes a process send itself SIGKILL the n-th time it passes a point.",
        table(("worker", "failpoints"), points),
    )


def dead_letter_header_page() -> str:
    """Every header that a dead letter has besides those of its record."""
    text = (
        "A dead letter has the key, the value and the headers of its record, byte for byte, and then these headers. "
        "Values are text in UTF-8. None of these headers holds personal data."
    )
    rows = [(f"`{name}`", meaning) for name, meaning in DEAD_LETTER_HEADERS.items()]
    return page(
        "Dead-letter headers", "consumers/headquarters/dead_letters.py", text, table(("header", "meaning"), rows)
    )


def unreadable_reason_page() -> str:
    """Every code of an unreadable record."""
    rows = [(f"`{reason.code}`", reason.meaning, reason.remedy) for reason in UNREADABLE_REASONS.values()]
    text = (
        "The header `x-dlq-reason` of a [dead letter](dead-letter-headers.md) has one of these codes, as has the field "
        "`reason` of the [log event](log-events.md) `partition_stopped`, when a store cannot read a record. [Dead "
        "letters](../how-to/dead-letters.md) has the commands."
    )
    source = "tenten/rules/unreadable_reasons.py"
    return page("Reasons of unreadable records", source, text, table(("code", "meaning", "remedy"), rows))


def log_event_page() -> str:
    """Every log event with its fields."""
    text = (
        "Logs go to stderr: readable lines on a terminal, logfmt otherwise; `TENTEN_LOG_FORMAT` chooses `console`, "
        "`logfmt` or `json`. Each line has `timestamp`, `level`, `event` and the fields of its event. `channel` is the "
        "name of the channel, or `headquarters`; `error` is the type of an exception and `code` its code."
    )
    rows = [(f"`{name}`", event.level, codes(event.fields), event.meaning) for name, event in LOG_EVENTS.items()]
    columns = ("event", "level", "fields", "meaning")
    return page("Log events", "tenten/runtime/log_events.py", text, table(columns, rows))


def metric_page() -> str:
    """Every metric with its labels and processes."""
    text = (
        "A process with `--http` serves these at `/metrics`, for Prometheus, besides the usual `process_*` and "
        "`python_*`. Values from the database and the broker are read for each scrape, at most every "
        "five seconds, and are absent while that server is away. No label contains a customer. "
        "[Monitoring](../how-to/monitoring.md) has alerts and a dashboard."
    )
    rows = [
        (
            f"`{name}`",
            metric.kind,
            codes(metric.labels),
            ", ".join(metric.served_by),
            metric.read or "-",
            metric.meaning,
        )
        for name, metric in METRICS.items()
    ]
    columns = ("metric", "type", "labels", "served by", "read in", "meaning")
    return page("Metrics", "tenten/runtime/metrics.py", text, table(columns, rows))


def soak_page() -> str:
    """The last long soak run, from its result."""
    result = json.loads(SOAK_RESULT.read_text(encoding="utf-8"))
    text = (
        "A company works while everything is done to it (`tests/faults/test_soak_run.py`): three customers workers, "
        "two transactions workers and four stores, two on PostgreSQL and two on SQLite, each with a clerk who creates "
        "and edits customers, takes orders, sells and closes days. Headquarters erases a customer now and then. "
        "Processes are killed and frozen; broker and PostgreSQL are stopped, killed and frozen; the stores' network is "
        "cut, frozen and slowed. Headquarters' database is put back to an older copy under running workers, and the "
        "topics `customers` and `channel-replies` are deleted and created again."
    )
    proof = (
        "In the end everything must settle without a hand. Then an independent checker reads all topics and "
        "databases, and compares them with each other, with a model of headquarters, and with the books of the clerks. "
        "A violation is: a customer with two numbers, a number of two customers, a gap, an event or a sale that is "
        "lost or applied twice, a value that a clerk entered last and that is not in every store, a process that ended "
        "by itself, a customer's name in a log, memory that grows by more than 64 MiB."
    )
    figures = [(name.replace("_", " "), _figure(value)) for name, value in result.items() if name != "memory_mib"]
    memory = [
        (f"`{name}`", str(life["seconds"]), str(life["first"]), str(life["last"]))
        for name, life in result["memory_mib"].items()
        if life
    ]
    return page(
        "The soak run",
        "tests/faults/soak_result.json",
        text,
        proof,
        table(("of the last long run", "figure"), figures),
        "The memory of the process of each name that was watched for the longest time, warm and at its end:",
        table(("process", "seconds", "MiB when warm", "MiB at the end"), memory),
    )


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return str(value)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "asyncapi.json": asyncapi,
    "commands.md": command_page,
    "dead-letter-headers.md": dead_letter_header_page,
    "exit-codes.md": exit_code_page,
    "http.md": http_page,
    "log-events.md": log_event_page,
    "metrics.md": metric_page,
    "openapi.json": openapi,
    "privileges.md": privilege_page,
    "processes.md": process_page,
    "reason-codes.md": reason_codes,
    "settings.md": settings_page,
    "soak.md": soak_page,
    "tables.md": table_page,
    "topics.md": topic_page,
    "unreadable-records.md": unreadable_reason_page,
}
"""The function that generates each page, by file name."""


if __name__ == "__main__":
    for name, generate in PAGES.items():
        (REFERENCE / name).write_text(generate(), encoding="utf-8")
