"""Compare headquarters' database with the `customers` topic, and have differing customers published again.

Every customer is compared by content, never by counts: a compacted topic has no meaningful count. It is done partition
by partition: in memory are the ids of all customers, 16 bytes each, and the digests of one partition. The stream
continues meanwhile, so differing customers are compared several times, with newer rows and records, before they are
reported. Each is then touched: the partition's owner publishes its current snapshot, or its tombstone if it is erased.
A customer of the topic that the database does not have at all is only reported: `recover` takes it back.

Where nothing is missing, the topic is declared complete; where something is, that declaration is withdrawn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Final
from uuid import UUID

import uuid_utils
from sqlalchemy import Connection, Engine, delete, insert, select
from structlog import get_logger

from tenten.consumers.headquarters.customers.customer_digests import Digest, TopicPartitionDigests, digest_of
from tenten.consumers.headquarters.customers.own_events import send_own_events, touch_of
from tenten.kafka.partitioner import partitions_of
from tenten.kafka.schema_registry import publish_schemas
from tenten.kafka.topic_status import declare_complete, declare_incomplete, read_topic_status
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.rules.limits import is_guid
from tenten.runtime.errors import LockHeld
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import customers, verifications
from tenten.schemas.topics import CUSTOMERS, ERASURES
from tenten.sql.customer_rows import HEADQUARTERS_TABLES, StoredCustomer, read_customers
from tenten.sql.locks import try_advisory_lock

log = get_logger(__name__)

CHUNK_CUSTOMERS: Final = 1_000
RETRIES_MAX: Final = 5
"""Further comparisons of a difference before it is reported."""

RETRY_SECONDS: Final = 1.0

KEPT_VERIFICATIONS: Final = 100
_ID_BYTES: Final = 16
_IDS: Final = 50_000

Progress = Callable[[str, int, int], None]
"""Called with the unit, the number of them compared, and the total. It may wait, and may raise to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """The customer ids at which database and topic differ, sorted."""

    customers: int
    """The number of customers in the database."""
    missing: tuple[str, ...]
    """In the database and not on the topic, or a tombstone there."""
    surplus: tuple[str, ...]
    """On the topic, and missing or erased in the database."""
    different: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    """Those of the surplus that the database does not have at all: they cannot be sent again."""

    @property
    def none(self) -> bool:
        """True when database and topic agree."""
        return not (self.missing or self.surplus or self.different)


def verify(settings: Settings, engine: Engine, progress: Progress = lambda *_: None) -> Differences:
    """Compare every customer of the database with the newest record of the topic, and touch those that differ.

    Raises: `LockHeld` while another verification runs; `KafkaRefused`, `KafkaException`; `DatabaseRefused` when a
    record on the topic is unreadable.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as lock:
        if not try_advisory_lock(lock, "verify"):
            raise LockHeld("another `tenten headquarters verify`, or the scheduled one of a worker, is running")
        try:
            return _verify(settings, engine, progress)
        finally:
            lock.invalidate()


def _verify(settings: Settings, engine: Engine, progress: Progress) -> Differences:
    name = settings.topic(CUSTOMERS)
    topic = topic_ids(settings, [name])[name]
    comparison = _Comparison(settings, engine, topic, progress)
    differences = comparison.run()
    complete = not differences.missing and not differences.different
    status = read_topic_status(settings, CUSTOMERS)
    if status is not None and not complete:
        declare_incomplete(settings, CUSTOMERS)
    declared = status is not None and status.topic_id == topic.topic_id
    # The id is asked again: the topic may have been recreated while it was read.
    if complete and not declared and topic_ids(settings, [name])[name] == topic:
        declare_complete(settings, CUSTOMERS, topic.topic_id, comparison.read_to)
    unknown = set(differences.unknown)
    touched = {*differences.missing, *differences.surplus, *differences.different, *comparison.unlisted_erasures}
    if touches := [touch_of(customer_id, str(uuid_utils.uuid7())) for customer_id in sorted(touched - unknown)]:
        send_own_events(settings, engine, touches, publish_schemas(settings)["CustomerEvent"])
    with engine.begin() as headquarters:
        _record(headquarters, differences)
    log.info(
        "verified",
        customers=differences.customers,
        missing=len(differences.missing),
        surplus=len(differences.surplus),
        different=len(differences.different),
    )
    return differences


def _record(headquarters: Connection, differences: Differences) -> None:
    """Record the result, and delete the oldest results."""
    row = {
        "finished_at": datetime.now(UTC),
        "customers": differences.customers,
        "missing": len(differences.missing),
        "surplus": len(differences.surplus),
        "different": len(differences.different),
    }
    headquarters.execute(insert(verifications), row)
    newest = select(verifications.c.finished_at).order_by(verifications.c.finished_at.desc()).limit(KEPT_VERIFICATIONS)
    headquarters.execute(delete(verifications).where(verifications.c.finished_at.not_in(newest)))


class _Comparison:
    """One comparison of all partitions."""

    def __init__(self, settings: Settings, engine: Engine, topic: TopicInfo, progress: Progress) -> None:
        self._settings = settings
        self._engine = engine
        self._partitions = topic.partitions
        self._progress = progress
        self._compared = self._existing = 0
        self.read_to: dict[int, int] = {}
        """By partition: the end up to which the topic was compared."""
        self.unlisted_erasures: set[str] = set()
        """Erased customers that are not on `erasures`: they were erased by a release that did not write it."""

    def run(self) -> Differences:
        """Compare partition by partition."""
        ids = self._ids_by_partition()
        total = sum(map(len, ids)) // _ID_BYTES
        name = self._settings.topic(ERASURES)
        erasures = TopicPartitionDigests(self._settings, ERASURES, topic_ids(self._settings, [name])[name].partitions)
        topic = TopicPartitionDigests(self._settings, CUSTOMERS, self._partitions)
        missing, surplus, different, unknown = set[str](), set[str](), set[str](), set[str]()
        try:
            listed = erasures.keys()
            for partition in range(self._partitions):
                differing = self._differing(topic, partition, ids[partition], listed, total)
                for customer_id, (stored, on_topic) in self._confirmed(topic, differing).items():
                    if on_topic is None:
                        missing.add(customer_id)
                    elif stored is None or stored.erased:
                        surplus.add(customer_id)
                        unknown |= {customer_id} if stored is None else set()
                    else:
                        different.add(customer_id)
                self.read_to[partition] = topic.read_to
        finally:
            topic.close()
            erasures.close()
        return Differences(
            customers=self._existing,
            missing=tuple(sorted(missing)),
            surplus=tuple(sorted(surplus)),
            different=tuple(sorted(different)),
            unknown=tuple(sorted(unknown)),
        )

    def _ids_by_partition(self) -> list[bytearray]:
        """The ids of all customers of the database, 16 bytes each, by the partition of their key."""
        ids = [bytearray() for _ in range(self._partitions)]
        after: str | None = None
        while True:
            query = select(customers.c.customer_id).order_by(customers.c.customer_id).limit(_IDS)
            with self._engine.begin() as headquarters:
                some = headquarters.scalars(query if after is None else query.where(customers.c.customer_id > after))
                found = some.all()
            if not found:
                return ids
            keys = [customer_id.encode() for customer_id in found]
            for customer_id, partition in zip(found, partitions_of(keys, self._partitions), strict=True):
                ids[partition] += UUID(customer_id).bytes
            after = found[-1]

    def _differing(
        self, topic: TopicPartitionDigests, partition: int, ids: bytearray, listed: set[bytes], total: int
    ) -> dict[str, Digest]:
        """The customers that differ in this partition, with the topic's digest of each."""
        digests = topic.read(partition, lambda: self._progress("customers", self._compared, total))
        differing: dict[str, Digest] = {}
        for chunk in _chunks(ids):
            for customer_id, stored in self._stored(chunk).items():
                digest, on_topic = digest_of(stored), digests.pop(customer_id.encode(), None)
                self._existing += digest is not None
                if digest != on_topic:
                    differing[customer_id] = on_topic
                if stored is not None and stored.erased and customer_id.encode() not in listed:
                    self.unlisted_erasures.add(customer_id)
            self._compared += len(chunk)
            self._progress("customers", self._compared, total)
        differing.update((key.decode(errors="replace"), digest) for key, digest in digests.items())
        return differing

    def _confirmed(
        self, topic: TopicPartitionDigests, differing: dict[str, Digest]
    ) -> dict[str, tuple[StoredCustomer | None, Digest]]:
        """Those that still differ with newer rows and records: the customer in the database, its digest on the topic.

        Waits, and compares again, a few times.
        """
        retries = 0
        while True:
            stored = self._stored(differing)
            still = {
                customer_id: digest
                for customer_id, digest in differing.items()
                if digest != digest_of(stored[customer_id])
            }
            if not still or retries == RETRIES_MAX:
                return {customer_id: (stored[customer_id], digest) for customer_id, digest in still.items()}
            retries += 1
            Event().wait(RETRY_SECONDS)
            differing = still | {
                customer_id: digest
                for key, digest in topic.read_on().items()
                if (customer_id := key.decode(errors="replace")) in still
            }

    def _stored(self, ids: Iterable[str]) -> dict[str, StoredCustomer | None]:
        """These customers as the database has them now."""
        some = list(ids)
        guids = list(filter(is_guid, some))
        found: dict[str, StoredCustomer] = {}
        for start in range(0, len(guids), CHUNK_CUSTOMERS):
            with self._engine.begin() as headquarters:
                found |= read_customers(headquarters, HEADQUARTERS_TABLES, guids[start : start + CHUNK_CUSTOMERS])
        return {customer_id: found.get(customer_id) for customer_id in some}


def _chunks(ids: bytearray) -> Iterator[Sequence[str]]:
    """The ids of a partition as texts, in chunks."""
    for start in range(0, len(ids), CHUNK_CUSTOMERS * _ID_BYTES):
        some = bytes(ids[start : start + CHUNK_CUSTOMERS * _ID_BYTES])
        yield [str(UUID(bytes=some[at : at + _ID_BYTES])) for at in range(0, len(some), _ID_BYTES)]
