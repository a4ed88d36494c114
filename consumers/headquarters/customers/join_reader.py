"""Reads `joins` in a thread of the registrar: stores that join get their answers with their settings.

Anyone with a store's credentials may write there. Whatever is there stops nothing and fills nothing: records that are
not valid requests are counted and skipped, a batch is bounded, and while requests cannot be judged the customers are
numbered all the same.

    crash                   effect
    before the SQL commit   the requests are read again
    after it                nothing: the answers are in the database, from which they are published
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Engine, text
from structlog import get_logger

from tenten.avro.wire import Unreadable, WriterSchemas, check_record, check_value, contract
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.join_requests import Alarm, is_plausible, judge_requests
from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.offsets import earliest_offsets
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.registry.apply import SETTINGS_CHANNEL, lock_registry
from tenten.runtime.error_codes import error_code, is_transient
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
from tenten.schemas.messages import JoinRequest, join_request_from_avro
from tenten.schemas.topics import JOINS
from tenten.sql.engine import consistent_view

log = get_logger(__name__)

REQUESTS_MAX: Final = 500
"""Of one SQL transaction."""

_REQUEST_BYTES_MAX: Final = 16 * 1024
_LIMITS: Final = BatchLimits(records_max=REQUESTS_MAX, bytes_max=4 * 1024 * 1024)
_QUEUE_KBYTES: Final = 1_024
_PAUSE_SECONDS: Final = 5.0
"""After a failure."""

_LOG_SECONDS: Final = 60.0
"""The shortest time between two log events about refused requests, and between two about failures."""

_STOP_SECONDS_MAX: Final = 30.0


class Alarms:
    """Logs tokens that came with another key: each at most once a minute."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        """By the id of the token."""

    def log(self, alarms: Sequence[Alarm], now: float) -> None:
        """Log these alarms, unless their token was logged within a minute. `now`: seconds of the monotonic clock."""
        self._logged_at = {name: at for name, at in self._logged_at.items() if now - at < _LOG_SECONDS}
        for alarm in alarms:
            if alarm.token_id not in self._logged_at:
                self._logged_at[alarm.token_id] = now
                log.error(
                    "join_with_another_key",
                    channel=alarm.channel_id,
                    token=alarm.token_id,
                    host=alarm.host,
                    refused=alarm.refused,
                )


class JoinReader:
    """Reads and judges requests to join until the end of the block."""

    def __init__(self, settings: Settings, engine: Engine, writers: WriterSchemas) -> None:
        self._settings = settings
        self._engine = engine
        self._writers = writers
        self._stop = Event()
        self._thread = Thread(target=self._run, name="joins", daemon=True)
        self._unreadable = self._unproven = 0
        self._alarms = Alarms()
        self._logged_at = self._failure_logged_at = -_LOG_SECONDS

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 - whatever fails here, the customers are numbered
                if time.monotonic() - self._failure_logged_at >= _LOG_SECONDS:
                    self._failure_logged_at = time.monotonic()
                    log.warning("joins_not_read", error=type(error).__name__, code=error_code(error))
                self._stop.wait(_PAUSE_SECONDS)

    def _read(self) -> None:
        """Read until the end of the block. Raises: errors of Kafka and of the database."""
        name = self._settings.topic(JOINS)
        topic = topic_ids(self._settings, [name])[name]
        begins = earliest_offsets(self._settings, name, topic.partitions)
        for partition, offset in self._positions(topic).items():
            # Requests are deleted after a day, also before they were read.
            begins[partition] = max(offset, begins[partition])
        with AssignedReader(self._settings, name, self._settings.reader_group(), begins, _QUEUE_KBYTES) as reader:
            while not self._stop.is_set():
                records = reader.read(_LIMITS)
                if records.values:
                    self._judge(topic, records)
                self._log_refused()

    def _judge(self, topic: TopicInfo, records: Records) -> None:
        """Judge the requests of a batch. One that cannot be judged at all is skipped, and holds up no other."""
        requests = [*self._requests(records)]
        try:
            self._judge_together(topic, requests, records.next_offsets())
        except Exception as error:
            if is_transient(error) or not requests:
                raise
            for request in requests:
                try:
                    self._judge_together(topic, [request], {})
                except Exception as error_of_one:
                    if is_transient(error_of_one):
                        raise
                    self._unreadable += 1
            self._judge_together(topic, [], records.next_offsets())

    def _judge_together(self, topic: TopicInfo, requests: list[JoinRequest], next_offsets: dict[int, int]) -> None:
        """One SQL transaction: the answers, and the position behind the requests."""
        with self._engine.begin() as headquarters:
            if requests:
                lock_registry(headquarters)
                own = ensure_headquarters_keys(headquarters)
                judged = judge_requests(headquarters, requests, own.private_key, datetime.now(UTC))
                self._unproven += judged.unproven
                if judged.has_stored:
                    headquarters.execute(text(f"NOTIFY {SETTINGS_CHANNEL}"))
                self._alarms.log(judged.alarms, time.monotonic())
            for partition, offset in next_offsets.items():
                place = {"topic_id": topic.topic_id, "partition": partition, "next_offset": offset}
                headquarters.execute(_MOVE, place)
            failpoint("joins.before_commit")
        failpoint("joins.after_commit")

    def _requests(self, records: Records) -> Iterator[JoinRequest]:
        """The requests that can be read, and are plausible; the others are counted."""
        schema = contract(JOINS.value)
        for key, value in zip(records.keys, records.values, strict=True):
            try:
                record = self._writers.decode(check_value(value, _REQUEST_BYTES_MAX), schema)
                check_record(schema, key, record)
                request = join_request_from_avro(record)
            except Unreadable:
                self._unreadable += 1
                continue
            if is_plausible(request):
                yield request
            else:
                self._unreadable += 1

    def _positions(self, topic: TopicInfo) -> dict[int, int]:
        with consistent_view(self._engine) as headquarters:
            rows = headquarters.execute(_POSITIONS, {"topic_id": topic.topic_id}).all()
        return {row.partition: row.next_offset for row in rows if row.partition < topic.partitions}

    def _log_refused(self) -> None:
        """Log the requests that were skipped, or had no proof, since the last time; at most once a minute."""
        if (self._unreadable or self._unproven) and time.monotonic() - self._logged_at >= _LOG_SECONDS:
            log.warning("join_requests_refused", unreadable=self._unreadable, without_proof=self._unproven)
            self._unreadable = self._unproven = 0
            self._logged_at = time.monotonic()


_POSITIONS: Final = text(
    "SELECT partition, next_offset FROM positions WHERE consumer_group = 'joins' AND topic_id = :topic_id"
)

_MOVE: Final = text(
    """
    INSERT INTO positions (consumer_group, topic_id, partition, next_offset)
    VALUES ('joins', :topic_id, :partition, :next_offset)
    ON CONFLICT (consumer_group, topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset
    """
)
"""Judging again what was judged changes nothing, so the position needs no guard."""
