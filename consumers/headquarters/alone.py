"""The right of a command to be alone at headquarters: no worker of these consumer groups runs, nor may one begin.

The lock in the database excludes workers that can reach it. A worker that has lost its connection is still a member of
its group, so the group must be empty, too.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from sqlalchemy import Engine

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.topics_admin import ask
from tenten.kafka.transactional_producer import TRANSACTION_SECONDS
from tenten.runtime.errors import LockHeld
from tenten.runtime.settings import Settings
from tenten.sql.slots import workers_stopped

_LEAVE_SECONDS: Final = 3 * TRANSACTION_SECONDS
"""How long to wait for the group: a killed worker is a member until its session ends."""

_POLL_SECONDS: Final = 0.2


@contextmanager
def alone(settings: Settings, engine: Engine, groups: Sequence[str]) -> Iterator[None]:
    """During the block no worker of these groups (names without prefix) runs. Waits for the sessions of killed workers.

    Raises: `LockHeld` while a worker runs; `KafkaRefused`, `KafkaException`.
    """
    with workers_stopped(engine, settings, groups):
        give_up_at = time.monotonic() + _LEAVE_SECONDS
        names = [settings.group(group) for group in groups]
        while members := _members(settings, names):
            if time.monotonic() > give_up_at:
                raise LockHeld(
                    f"{members} workers are still members of the consumer groups {', '.join(names)}: stop every "
                    "`tenten headquarters run`, `tenten transactions run` and `tenten up` first"
                )
            time.sleep(_POLL_SECONDS)
        yield


def _members(settings: Settings, names: Sequence[str]) -> int:
    """The number of members of these groups. Raises: `KafkaRefused`, `KafkaException`."""
    described = ask(
        settings, lambda admin: admin.describe_consumer_groups(list(names), request_timeout=REQUEST_SECONDS)
    )
    members = 0
    for name, future in described.items():
        try:
            members += len(call_kafka(future.result, name).members)
        except KafkaException as error:
            # A group that nobody has ever joined.
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
    return members
