"""P3: flat customers, without addresses and contacts, into PostgreSQL: distribution against Debezium's JDBC sink.

The sink runs in Kafka Connect, one task, with the jars of Maven Central, which come the way the broker's do. It reads
the same customers as JSON with a schema, the form that Connect brings along, into a table with the same key, and
upserts. Both are warmed up; then all records become visible at once.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
from sqlalchemy import make_url

from benchmarks.customers import Record, snapshots
from benchmarks.databases import observer
from benchmarks.filling import Filling
from benchmarks.measuring import NotRun, Result, Scalar, Scale, Settings, Unit
from benchmarks.processes import Process, started, tenten, wait_until
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from tenten.avro.wire import contract, decode_body
from tenten.local import KAFKA_VERSION, LocalServiceFailure, java, ports
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS

RATE_AT_LEAST: Final = 4.0
MEMORY_AT_MOST: Final = 1 / 4
CPU_AT_MOST: Final = 1 / 10

_COORDINATES: Final = (
    # The last release whose dependencies jgo resolves completely.
    "io.debezium:debezium-connector-jdbc:3.3.1.Final",
    f"org.apache.kafka:connect-runtime:{KAFKA_VERSION}",
    f"org.apache.kafka:connect-json:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
    # Java reaches a server that listens on a Unix socket only.
    "com.kohlschutter.junixsocket:junixsocket-common:2.10.1",
    "com.kohlschutter.junixsocket:junixsocket-native-common:2.10.1",
)
_HEAP: Final = ("-Xms256M", "-Xmx2G")
"""As Connect's own start script has it."""
_STORE: Final = "store"
_TABLE: Final = "flat_customers"
_SINK: Final[Mapping[str, Scalar]] = {
    "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
    "tasks.max": 1,
    "insert.mode": "upsert",
    "primary.key.mode": "record_value",
    "primary.key.fields": "customer_id",
    "schema.evolution": "none",
    "batch.size": 5_000,
    "consumer.override.max.poll.records": 5_000,
    "consumer.override.isolation.level": "read_committed",
    "consumer.override.auto.offset.reset": "earliest",
}
_COLUMN_TYPES: Final = {"string": "text", "int64": "bigint"}
_SEED: Final = 1
_WARM_UP_SEED: Final = 7
_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """The rate that a process reached, and the memory and CPU time that it needed."""

    thousands_a_second: float
    memory_mib: float
    cpu_seconds: float


def against_debezium(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """P3: rate, memory and CPU. Raises: `NotRun` where the sink's jars cannot be had."""
    try:
        program = java.fetch_program(_COORDINATES, "Debezium's JDBC sink", lambda _: None)
    except LocalServiceFailure as failure:
        raise NotRun(str(failure)) from failure
    with stage(servers, {_STORE: "postgresql"}) as on:
        subject = _distribution(on, scale)
        peer = _sink(on, scale, program)
    settings: Settings = {"customers": scale.customers, "peer": _COORDINATES[0], "heap": " ".join(_HEAP), **_SINK}
    measured: tuple[tuple[str, Unit, float, float, float | None, float | None], ...] = (
        ("rate", "k/s", subject.thousands_a_second, peer.thousands_a_second, RATE_AT_LEAST, None),
        ("memory", "MiB", subject.memory_mib, peer.memory_mib, None, MEMORY_AT_MOST),
        ("CPU", "s", subject.cpu_seconds, peer.cpu_seconds, None, CPU_AT_MOST),
    )
    for what, unit, ours, theirs, at_least, at_most in measured:
        yield Result(
            bar="P3",
            what=f"distribution of flat customers into PostgreSQL, {what}",
            against="Debezium's JDBC sink, one task",
            unit=unit,
            subject=[ours],
            limit=[theirs],
            at_least=at_least,
            ratio_at_most=at_most,
            settings=settings,
        )


def _distribution(on: Stage, scale: Scale) -> _Use:
    """Measure `tenten channel distribute`."""
    topic = on.settings.topic(CUSTOMERS)
    with tenten(on, "channel", "distribute", _STORE) as process:
        return _measure(on, process, scale, _Way(topic, "customers", lambda record: record))


def _sink(on: Stage, scale: Scale, program: Sequence[str]) -> _Use:
    """Measure the sink, which reads JSON from a topic that nothing else reads meanwhile."""
    topic = on.settings.topic(ASYNC_CUSTOMERS)
    with observer(on.channel_url(_STORE)) as ask:
        columns = ", ".join(f"{name} {_COLUMN_TYPES.get(kind, kind)}" for name, kind in _fields().items())
        ask(f"CREATE TABLE {_TABLE} ({columns}, PRIMARY KEY (customer_id))")
    worker, connector = _configuration(on, topic)
    command = [*program, *_HEAP, "org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(connector)]
    with started(on, command) as process:
        return _measure(on, process, scale, _Way(topic, _TABLE, _as_json))


class _Way(NamedTuple):
    """The way of the customers: a topic, a table, and the form in which they are produced."""

    topic: str
    table: str
    form: Callable[[Record], Record]

    def fill(self, on: Stage, count: int, seed: int) -> Filling:
        records = map(self.form, snapshots(count, 1, seed=seed, flat=True))
        return Filling(on.servers.bootstrap_servers, self.topic, records, "Customer")


def _measure(on: Stage, process: Process, scale: Scale, way: _Way) -> _Use:
    """Let a process write the customers of the warm-up, a tenth, then those that are measured."""
    warm_up = scale.customers // 10
    with observer(on.channel_url(_STORE)) as ask:

        def has_written(count: int) -> bool:
            return ask(f"SELECT count(*) FROM {way.table}") == [(count,)]  # noqa: S608 - our own names

        way.fill(on, warm_up, _WARM_UP_SEED).release()
        wait_until(lambda: has_written(warm_up), [process], _PAUSE_SECONDS)
        filling = way.fill(on, scale.customers, _SEED)
        checkpoint(on.servers)
        before = _cpu_seconds(process)
        started_at = filling.release()
        ended_at = wait_until(lambda: has_written(warm_up + scale.customers), [process], _PAUSE_SECONDS)
    return _Use(
        thousands_a_second=scale.customers / (ended_at - started_at) / 1000,
        memory_mib=process.memory_peak_bytes() / 2**20,
        cpu_seconds=_cpu_seconds(process) - before,
    )


def _cpu_seconds(process: Process) -> float:
    times = psutil.Process(process.popen.pid).cpu_times()
    return times.user + times.system


# The sink's side.


def _fields() -> dict[str, str]:
    """The fields of a flat customer and their types in Connect."""
    (record,) = snapshots(1, 1, seed=_SEED, flat=True)
    return {name: "int64" if isinstance(value, int) else "string" for name, value in _flat(record).items()}


def _flat(record: Record) -> dict[str, Any]:
    """A customer's own fields; lists as JSON."""
    schema = contract("Customer")
    customer = decode_body(record.value[len(schema.header) :], writer=schema, reader=schema)
    fields = {**customer, **customer.pop("customer"), "updated_at": customer["updated_at"].isoformat()}
    return {
        name: json.dumps(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if name not in {"addresses", "contacts", "attributes"}
    }


def _as_json(record: Record) -> Record:
    value = {"schema": _schema(), "payload": _flat(record)}
    return record._replace(value=json.dumps(value).encode())


@cache
def _schema() -> dict[str, Any]:
    fields = [{"field": name, "type": kind, "optional": name != "customer_id"} for name, kind in _fields().items()]
    return {"type": "struct", "name": "customer", "fields": fields}


def _configuration(on: Stage, topic: str) -> tuple[Path, Path]:
    """The files of the worker and of its connector."""
    url = make_url(on.channel_url(_STORE))
    # Unix sockets by way of a library, see the coordinates.
    factory = "org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg"
    socket = f"{url.query['host']}/.s.PGSQL.5432"
    worker = {
        "bootstrap.servers": on.servers.bootstrap_servers,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "offset.storage.file.filename": str(on.directory / "connect.offsets"),
        "listeners": f"http://127.0.0.1:{ports.free_port()}",
    }
    connector = {
        "name": "sink",
        "topics": topic,
        "connection.url": f"jdbc:postgresql://localhost/{url.database}?socketFactory={factory}&socketFactoryArg={socket}",
        "connection.username": "postgres",
        "connection.password": "",
        "collection.name.format": _TABLE,
        **_SINK,
    }
    return _properties(on.directory / "worker.properties", worker), _properties(
        on.directory / "sink.properties", connector
    )


def _properties(file: Path, properties: Mapping[str, object]) -> Path:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    return file
