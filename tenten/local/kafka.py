"""One Apache Kafka broker on this machine: the real one, KRaft mode, from its published jars.

A broker lives in a directory of its own:

    kafka.json           pid, address and cluster id of the broker last started here
    server.properties    rewritten at each start
    data/                the log; a broker started here again finds its topics
    broker.log           the broker's output

Its files and their Java come from `java.py`, its ports from `ports.py`.
"""

import base64
import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from filelock import FileLock

from tenten.local import java, ports, processes
from tenten.local.directories import create_directory, write_private
from tenten.local.failures import LocalServiceFailure

KAFKA_VERSION: Final = "4.1.2"
# The second is the broker's logging; without it a broker that cannot start logs nothing.
KAFKA_COORDINATES: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
)

KAFKA_CHECKSUMS: Final = Path(__file__).parent / "kafka_jars.sha512"
"""The SHA-512 of each of its jars."""

BROKER_PROPERTIES: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # Topics come from the catalogue (`tenten topics apply`), never from a misspelt name.
    "auto.create.topics.enable": "false",
    # There is one broker. Without these, init_transactions() and group joins hang for ever.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Two internal topics of 50 partitions each would be most of the files and of the start of a small broker.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # The first member of a group need not wait three seconds for others.
    "group.initial.rebalance.delay.ms": "0",
    # A killed broker can register again when its former session has been silent for this long; default 9 s.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
    # The transaction of a killed worker, which holds up readers, is aborted a second after its timeout; default 10 s.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}
"""The broker's configuration; docker-compose.yml is tested against it. Addresses and paths are added."""

_LISTENER_PROTOCOLS = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"
_HEAP_MEGABYTES = 512

QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Java options of a broker that runs for minutes, or for little: optimizing its code would take more than it saves."""
_ONE_LOGGING_CONTEXT = "-Dlog4j2.contextSelector=org.apache.logging.log4j.core.selector.BasicContextSelector"
"""By default each new logger, of which a partition has many, walks the stack to find its class loader's context."""
_START_SECONDS_MAX = 90.0
_ANSWER_SECONDS_MAX = 20.0
_STOP_SECONDS = 15.0
_PORT_ATTEMPTS_MAX = 5
_LOG4J = """\
rootLogger.level = warn
logger.network.name = org.apache.kafka.clients.NetworkClient
logger.network.level = error
logger.authorizer.name = kafka.authorizer.logger
logger.authorizer.level = info
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKafka:
    """A broker that runs, or ran, in a directory."""

    pid: int
    bootstrap_servers: str
    controller_port: int
    cluster_id: str
    directory: Path

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self.bootstrap_servers.rpartition(":")[2])


def start_kafka(
    directory: Path,
    report: Callable[[str], None] = lambda _: None,
    properties: Mapping[str, str] | None = None,
    listeners: Mapping[str, str] | None = None,
    *,
    heap_megabytes: int = _HEAP_MEGABYTES,
    java_options: Sequence[str] = QUICK_START,
) -> LocalKafka:
    """Start a broker in this directory and wait until it answers. A running broker is returned unchanged.

    A stopped broker is started with its data, on its port unless another program has taken it. `properties` override
    our server properties; `listeners` are additional listeners by name, each with security protocol and address, such
    as `SASL_PLAINTEXT://127.0.0.1:24093`. `heap_megabytes` is the largest heap of the broker.
    `java_options` are further options of Java, as are those in the variable KAFKA_OPTS of the environment.

    Raises: NotInstalled, LocalServiceFailure.
    """
    directory = create_directory(directory)
    with FileLock(directory / "kafka.lock"):
        before = _read(directory)
        if before is not None and processes.is_running(_process(before)):
            if not _wait_until_answering(before, _ANSWER_SECONDS_MAX):
                raise LocalServiceFailure(f"Apache Kafka runs at {before.bootstrap_servers} but does not answer")
            return before
        name = f"Apache Kafka {KAFKA_VERSION}"
        program = [
            *java.fetch_program(KAFKA_COORDINATES, name, report, KAFKA_CHECKSUMS),
            *java_options,
            *shlex.split(os.environ.get("KAFKA_OPTS", "")),
        ]
        report(f"Starting Apache Kafka {KAFKA_VERSION}")
        return _start_on_free_ports(
            directory, program, before, _Extra(properties or {}, listeners or {}, heap_megabytes)
        )


def kafka_status(directory: Path) -> LocalKafka | None:
    """The broker whose process runs in this directory, perhaps frozen or starting; None if none does."""
    kafka = _read(directory.absolute())
    return kafka if kafka is not None and processes.is_running(_process(kafka)) else None


def stop_kafka(directory: Path, grace_seconds: float = _STOP_SECONDS) -> bool:
    """Stop the broker in this directory and keep its data; False if none was running. No grace means SIGKILL."""
    kafka = _read(directory.absolute())
    return kafka is not None and processes.end(_process(kafka), grace_seconds)


class _Extra(NamedTuple):
    """Additions of the caller to our own configuration."""

    properties: Mapping[str, str]
    listeners: Mapping[str, str]
    heap_megabytes: int


def _start_on_free_ports(
    directory: Path, program: Sequence[str], before: LocalKafka | None, extra: _Extra
) -> LocalKafka:
    """Try ports until the broker stays up: another program may take a free port before the broker binds it."""
    cluster_id = before.cluster_id if before is not None else _new_cluster_id()
    (directory / "log4j2.properties").write_text(_LOG4J)
    for attempt in range(_PORT_ATTEMPTS_MAX):
        port = (
            before.port if before is not None and attempt == 0 and ports.comes_free(before.port) else ports.free_port()
        )
        kafka = _launch(directory, program, port, cluster_id, extra)
        if _wait_until_answering(kafka, _START_SECONDS_MAX):
            return kafka
        processes.end(_process(kafka), grace_seconds=0)
        if "BindException" not in _log_tail(directory):
            break
    raise LocalServiceFailure(
        f"Apache Kafka did not start; the end of {directory / 'broker.log'}:\n{_log_tail(directory)}"
    )


def _launch(directory: Path, program: Sequence[str], port: int, cluster_id: str, extra: _Extra) -> LocalKafka:
    controller_port = ports.free_port()
    log = directory / "broker.log"
    log.unlink(missing_ok=True)
    server_properties = directory / "server.properties"
    place = _place(directory, port, controller_port, extra.listeners)
    lines = {**BROKER_PROPERTIES, **place, **extra.properties}
    write_private(server_properties, "".join(f"{name}={value}\n" for name, value in lines.items()))
    if not (directory / "data" / "meta.properties").exists():
        _format(program, server_properties, cluster_id)
    command = [
        *program,
        f"-Xmx{extra.heap_megabytes}m",
        "-XX:+ExitOnOutOfMemoryError",
        f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}",
        _ONE_LOGGING_CONTEXT,
        "kafka.Kafka",
        str(server_properties),
    ]
    process = processes.launch(command, directory, log, marker=str(server_properties))
    kafka = LocalKafka(
        pid=process.pid,
        bootstrap_servers=f"127.0.0.1:{port}",
        controller_port=controller_port,
        cluster_id=cluster_id,
        directory=directory,
    )
    write_private(directory / "kafka.json", json.dumps(asdict(kafka), default=str))
    return kafka


def _place(directory: Path, port: int, controller_port: int, more: Mapping[str, str]) -> dict[str, str]:
    """The properties that differ from one broker to the next."""
    split = {name: address.partition("://") for name, address in more.items()}
    added = [f"{name}://{address}" for name, (_, _, address) in split.items()]
    return {
        "listeners": ",".join([f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller_port}", *added]),
        "advertised.listeners": ",".join([f"PLAINTEXT://127.0.0.1:{port}", *added]),
        "listener.security.protocol.map": ",".join(
            [_LISTENER_PROTOCOLS, *(f"{name}:{protocol}" for name, (protocol, _, _) in split.items())]
        ),
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(directory / "data"),
    }


def _format(program: Sequence[str], server_properties: Path, cluster_id: str) -> None:
    """Write the identity of a new broker into its data directory; an interrupted attempt is repeated."""
    storage_tool = [
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        "-t",
        cluster_id,
        "-c",
        str(server_properties),
    ]
    formatted = subprocess.run(
        [*program, *storage_tool], capture_output=True, text=True, check=False, umask=processes.PRIVATE_UMASK
    )
    if formatted.returncode != 0:
        raise LocalServiceFailure(
            f"Apache Kafka's storage could not be formatted: {formatted.stdout}{formatted.stderr}"
        )


def _wait_until_answering(kafka: LocalKafka, seconds: float) -> bool:
    """Whether the broker of this cluster answers in time; False as soon as its process has ended."""
    deadline = time.monotonic() + seconds
    while processes.is_running(_process(kafka)) and time.monotonic() < deadline:
        if ports.is_listening(kafka.port) and _answers(kafka):
            return True
        time.sleep(0.1)
    return False


def _answers(kafka: LocalKafka) -> bool:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    try:
        metadata = client.list_topics(timeout=2)
    except KafkaException:
        return False
    # Another broker may have taken the port.
    return str(metadata.cluster_id) == kafka.cluster_id


def _process(kafka: LocalKafka) -> processes.BackgroundProcess:
    return processes.BackgroundProcess(pid=kafka.pid, marker=str(kafka.directory / "server.properties"))


def _read(directory: Path) -> LocalKafka | None:
    try:
        noted = json.loads((directory / "kafka.json").read_text())
    except FileNotFoundError:
        return None
    return LocalKafka(**{**noted, "directory": directory})


def _log_tail(directory: Path) -> str:
    log = directory / "broker.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:]) if log.exists() else ""


def _new_cluster_id() -> str:
    """A cluster id as Kafka writes them: a random UUID in 22 characters that begin with no hyphen, as options do."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
