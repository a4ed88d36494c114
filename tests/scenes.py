"""A scene for tests of headquarters: its own topics, database and settings on the shared servers, and its workers.

Events are written, and replies and snapshots read, as generic Avro records: expectations do not depend on the
product's types.
"""

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Final, Protocol, TypeAlias

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from psycopg.rows import dict_row

from tenten.consumers.headquarters.customers.run import run as run_headquarters
from tenten.consumers.headquarters.transactions.run import run as run_transactions
from tenten.kafka.topics_admin import apply_topics
from tenten.runtime.settings import Settings
from tests.databases import headquarters_tables
from tests.faults.avro import decode
from tests.faults.checker import Sequence, Setting
from tests.faults.evidence import HeadquartersTables, read_headquarters
from tests.faults.journal import Journal, Writer
from tests.settings_file import DEMF, PARTITIONS, channel, general, headquarters, kafka, legal_entity
from tests.threads import Worker
from tests.waiting import wait_for

DEADLINE_SECONDS: Final = 180.0
"""The longest time that a test waits for a condition."""

LEGAL_ENTITY_BY_CHANNEL: Final = {"houston": "usrt", "dallas": "usrt", "munich": "demf"}
SETTING: Final = Setting(
    legal_entity_by_channel=LEGAL_ENTITY_BY_CHANNEL,
    sequences={
        "usrt": Sequence(format="C-########"),
        "demf": Sequence(format="D########", continuous=False),
    },
)


@dataclass(slots=True, kw_only=True)
class Scene:
    """The headquarters of one test, with a journal of the events sent to it."""

    bootstrap_servers: str
    prefix: str
    url: str
    toml: Path
    journal: Journal = field(default_factory=Journal)
    workers: "list[Runs]" = field(default_factory=list)
    """The running workers: waiting for replies fails as soon as one of them fails."""

    @property
    def settings(self) -> Settings:
        """The settings in the file, without those that the environment has for the servers shared by all tests."""
        return Settings.model_validate(tomllib.loads(self.toml.read_text()), context={"directory": self.toml.parent})

    def apply_settings(self) -> None:
        """Give headquarters' database the legal entities and channels of the file, and no others."""
        headquarters_tables(self.url, self.settings)

    def send(self, *events: dict[str, Any]) -> None:
        """Write events and wait for the broker's acknowledgements."""
        writer = Writer(self.bootstrap_servers, self.prefix, self.journal)
        for event in events:
            writer.send(event)
        writer.flush()

    def replies(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """The last reply to each of these events; waits until every event has one."""
        event_ids = [event["event_id"] for event in events]
        with self.follow("channel-replies", "Reply") as follower:
            latest: dict[str, dict[str, Any]] = {}

            def have_arrived() -> bool:
                for worker in self.workers:
                    worker.check()
                latest.update((reply["event_id"], reply) for _, reply in follower.more() if reply is not None)
                return latest.keys() >= set(event_ids)

            try:
                wait_for(have_arrived, "replies")
            except AssertionError as error:
                missing = sorted({*event_ids} - latest.keys())
                raise AssertionError(
                    f"{error}: {len(missing)} of {len(event_ids)} are missing: {missing[:3]}"
                ) from None
        return [latest[event_id] for event_id in event_ids]

    def ask(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Send events and return the reply to each."""
        self.send(*events)
        return self.replies(*events)

    @contextmanager
    def follow(self, topic: str, contract: str) -> "Iterator[Follower]":
        """A reader of a topic from its beginning."""
        follower = Follower(self.bootstrap_servers, self.prefix + topic, contract)
        try:
            yield follower
        finally:
            follower.close()

    def tables(self) -> HeadquartersTables:
        """The current contents of headquarters' tables."""
        return read_headquarters(self.url)

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Execute and commit a statement in headquarters' database; return its rows."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def headquarters(self, slot: int | None = None) -> "Iterator[Worker]":
        """Run a customers worker in this process during the block. Its failure is raised at the end."""
        with self._worker(run_headquarters, slot) as worker:
            yield worker

    @contextmanager
    def transactions(self, slot: int | None = None) -> "Iterator[Worker]":
        """Run a transactions worker in this process during the block. Its failure is raised at the end."""
        with self._worker(run_transactions, slot) as worker:
            yield worker

    @contextmanager
    def _worker(self, run: "Run", slot: int | None) -> "Iterator[Worker]":
        worker = Worker(lambda stop: run(self.settings, stop, slot))
        self.workers.append(worker)
        try:
            yield worker
        finally:
            self.workers.remove(worker)
            worker.stop()
        worker.check()


class Runs(Protocol):
    """A worker in a thread or a process."""

    def check(self) -> None:
        """Raise if it has failed."""


Run: TypeAlias = Callable[[Settings, Event, int | None], None]
"""The `run` function of a worker at headquarters."""


class Follower:
    """Reads a topic from its beginning; each call of `more` continues to the current end."""

    def __init__(self, bootstrap_servers: str, topic: str, contract: str) -> None:
        self._contract = contract
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"{topic}-follower",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=DEADLINE_SECONDS).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def more(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Keys and decoded values that have arrived since the last call; None is a tombstone. Blocks up to 50 ms."""
        messages = self._consumer.consume(10_000, timeout=0.05)
        for message in messages:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        return [(_text(message.key()), self._decoded(message.value())) for message in messages]

    def _decoded(self, value: Any) -> dict[str, Any] | None:
        return None if value is None else decode(self._contract, value)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _text(key: Any) -> str:
    return bytes(key or b"").decode(errors="replace")


def set_scene(
    directory: Path,
    bootstrap_servers: str,
    prefix: str,
    url: str,
    *,
    limits: Mapping[str, int] | None = None,
    usrt_format: str = "C-########",
    partitions: int = PARTITIONS,
    has_tables: bool = False,
    erasing: Collection[str] = tuple(LEGAL_ENTITY_BY_CHANNEL),
) -> Scene:
    """Topics, tables and settings, ready for a worker. `limits` are further settings of `[headquarters]`.

    `has_tables`: the database already has the tables. `erasing`: the channels that may erase customers.
    """
    scene = Scene(bootstrap_servers=bootstrap_servers, prefix=prefix, url=url, toml=directory / "tenten.toml")
    parts = [
        general(prefix, partitions=partitions),
        # The shortest that a broker allows: a killed worker's partitions are free again sooner.
        kafka(bootstrap_servers, session_timeout_ms="6000", heartbeat_interval_ms="1500"),
        headquarters(url, **(limits or {})),
        legal_entity("usrt", usrt_format),
        DEMF,
        *(channel(name, of=entity, may_erase=name in erasing) for name, entity in LEGAL_ENTITY_BY_CHANNEL.items()),
    ]
    scene.toml.write_text("\n".join(parts))
    apply_topics(scene.settings)
    if not has_tables:
        scene.apply_settings()
    return scene
