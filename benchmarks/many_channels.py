"""J3: the commands of an operator, and the workers of headquarters, with ten thousand channels.

The workers run with two channels first, so that their memory shows what the others add. Then a file with all channels
is applied, each sends a heartbeat, and every command is run, as a process of its own.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from confluent_kafka import Producer

from benchmarks.customers import ADDRESS_BOOK, CHANNELS, LEGAL_ENTITY
from benchmarks.filling import high_watermarks
from benchmarks.measuring import Result, Scale
from benchmarks.processes import Process, tenten, wait_until
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from tenten.avro.wire import contract, encode
from tenten.schemas.messages import Heartbeat, to_avro
from tenten.schemas.topics import CHANNEL_SETTINGS, CHANNEL_STATUS

COMMAND_SECONDS_MAX: Final = 1.0
WORKER_MIB_MAX: Final = 100.0

_WORKERS: Final = ("headquarters", "transactions")
_CALM_SECONDS: Final = 3.0
_HEARTBEATS: Final = 10
"""Of each channel: one a minute, in the ten minutes between two compactions."""


def many_channels(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """J3: the memory that the channels add to each worker, then the seconds of each command."""
    names = [f"store{number:05}" for number in range(scale.channels)]
    with stage(servers, dict.fromkeys(CHANNELS, "sqlite")) as on, ExitStack() as running:
        workers = {worker: running.enter_context(tenten(on, worker, "run")) for worker in _WORKERS}
        before = _memory_when_calm(on, workers, len(CHANNELS))
        files = [_file(on, names, cut_off_hour) for cut_off_hour in (4, 5)]
        applied = _seconds(on, ["settings", "apply", str(files[0])])
        after = _memory_when_calm(on, workers, len(CHANNELS) + len(names))
        _send_heartbeats(on, [*CHANNELS, *names])
        commands = {
            "settings diff FILE": ["settings", "diff", str(files[0])],
            "settings apply FILE, with one change": ["settings", "apply", str(files[1])],
            "settings show": ["settings", "show"],
            "channel suspend NAME": ["channel", "suspend", names[0], "--why", "a test"],
            "channel resume NAME": ["channel", "resume", names[0]],
            "channel enroll NAME": ["channel", "enroll", names[0], "--json"],
            "fleet": ["fleet", "--json"],
            "status": ["status", "--json"],
        }
        taken = {f"settings apply FILE, {len(names):,} new channels": [applied]}
        taken |= {what: [_seconds(on, words) for _ in range(scale.runs)] for what, words in commands.items()}
    yield from _results(len(names), {worker: after[worker] - before[worker] for worker in _WORKERS}, taken)


def _results(
    channels: int, memory_bytes: Mapping[str, int], seconds_by_command: Mapping[str, list[float]]
) -> Iterator[Result]:
    for worker, added in memory_bytes.items():
        yield Result(
            bar="J3",
            what=f"memory that {channels:,} channels add to `tenten {worker} run`",
            unit="MiB",
            subject=[added / 2**20],
            at_most=WORKER_MIB_MAX,
            settings={"channels": channels},
        )
    for command, seconds in seconds_by_command.items():
        yield Result(
            bar="J3",
            what=f"`tenten {command}`" if "," not in command else "`tenten {}`,{}".format(*command.split(",", 1)),
            unit="s",
            subject=seconds,
            at_most=COMMAND_SECONDS_MAX,
            settings={"channels": channels},
        )


def _memory_when_calm(on: Stage, workers: Mapping[str, Process], channels: int) -> dict[str, int]:
    """The peak memory of each worker, some seconds after the settings of this many channels were published."""
    topic, servers = on.settings.topic(CHANNEL_SETTINGS), on.servers.bootstrap_servers
    wait_until(
        lambda: sum(high_watermarks(servers, topic).values()) >= channels, [*workers.values()], pause_seconds=0.2
    )
    time.sleep(_CALM_SECONDS)
    return {name: worker.memory_peak_bytes() for name, worker in workers.items()}


def _file(on: Stage, names: list[str], cut_off_hour: int) -> Path:
    """The settings of the stage with a channel of each of these names; the hour is that of the last one."""
    lines = [on.file.read_text()]
    for name in names:
        hour = cut_off_hour if name == names[-1] else 0
        lines += [
            f"[channels.{name}]",
            f'legal_entity = "{LEGAL_ENTITY}"',
            f'address_books = ["{ADDRESS_BOOK}", "MX"]',
            'creation = "async"',
            "sync_seconds = 2.0",
            'time_zone = "America/Chicago"',
            f"cut_off_hour = {hour}",
            f"[channels.{name}.default_customer]",
            'receipt_preference = "email"',
        ]
    file = on.directory / f"channels-{cut_off_hour}.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _send_heartbeats(on: Stage, names: list[str]) -> None:
    """Heartbeats of each channel, as if all were well: as many as come before the topic is compacted."""
    now = datetime.now(UTC)
    schema = contract(CHANNEL_STATUS.value)
    producer = Producer(
        {
            "bootstrap.servers": on.servers.bootstrap_servers,
            "log_level": 3,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for name in names * _HEARTBEATS:
        heartbeat = Heartbeat(
            channel_id=name, release="0.2.0", sent_at=now, unsent=0, unsettled=0, customers=50_000, complete_at=now
        )
        producer.produce(on.settings.topic(CHANNEL_STATUS), encode(schema, to_avro(heartbeat)), name)
        producer.poll(0)
    producer.flush()


def _seconds(on: Stage, words: list[str]) -> float:
    """From the start of a command to its end."""
    checkpoint(on.servers)
    started_at = time.perf_counter()
    with tenten(on, *words) as process:
        ended_at, _ = process.wait()
    return ended_at - started_at
