"""Release waiting transactions: orders become numbered sales orders, cash-and-carry sales become ready to post.

A release pass is one SQL transaction; passes of all processes run one at a time. A transaction is released when

- it has no customer, or
- headquarters has accepted the customer event inside it, or it has none and the customer exists in its legal entity, or
- the customer is erased, or
- the event was rejected, but the customer and the delivery address are known all the same.

It does not matter how and in which order its customer arrives. A transaction whose event was rejected is blocked with
the reasons, and released by a pass after the correction.

A pass looks at the release queue and at new statements; a full scan looks at all that wait, so that nothing depends on
the queue.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from tenten.consumers.headquarters.release_queue import dequeue
from tenten.consumers.headquarters.transactions.blocking import alarm, block, block_rejected, explain_waiting
from tenten.consumers.headquarters.transactions.reply_outbox import enqueue_replies
from tenten.consumers.headquarters.transactions.sales_orders import Released, release_individually, release_together
from tenten.consumers.headquarters.transactions.statements import post_statements
from tenten.runtime.database_refusal import database_refusal
from tenten.runtime.error_codes import error_code, is_data_error, is_transient
from tenten.runtime.failpoints import failpoint

log = get_logger(__name__)

TRANSACTIONS_MAX: Final = 10_000
"""Maximum number of transactions in one release pass."""

INDIVIDUAL_MAX: Final = 500
"""The same where each is released individually."""

GIVE_UP_SECONDS: Final = 60.0
"""How long to wait for a customer event that headquarters has not received, where customer and address are known."""


class ReleasePass(NamedTuple):
    """The result of a release pass."""

    released: int
    statements: int
    """Statements that have changed."""
    queue_is_full: bool
    """Whether the release queue held as much as one pass takes."""
    more: bool
    """Whether there may be more to release at once."""


def release(engine: Engine, waiting_seconds_max: int, *, full_scan: bool) -> ReleasePass:
    """Make a release pass. Transactions whose data the database rejects are blocked individually.

    Raises: transient errors; `DatabaseRefused` for any other error that no record causes; then nothing has changed.
    """
    try:
        return _release_pass(engine, waiting_seconds_max, full_scan=full_scan, individually=False)
    except DBAPIError as error:
        if is_transient(error):
            raise
        if not is_data_error(error):
            raise database_refusal(error, "a release pass") from error
        log.warning("release_pass_rejected_by_database", code=error_code(error))
    return _release_pass(engine, waiting_seconds_max, full_scan=True, individually=True)


def _release_pass(engine: Engine, waiting_seconds_max: int, *, full_scan: bool, individually: bool) -> ReleasePass:
    with engine.begin() as headquarters:
        headquarters.execute(_BEGIN)
        now = datetime.now(UTC)
        queue = dequeue(headquarters, TRANSACTIONS_MAX)
        rows_max = INDIVIDUAL_MAX if individually else TRANSACTIONS_MAX
        parameters = {"ids": queue.ids, "rows_max": rows_max, "give_up": now - _GIVE_UP, "now": now}
        result = Released([], {})
        if full_scan or queue.entries:
            release_releasable = release_individually if individually else release_together
            result = release_releasable(headquarters, parameters, full_scan=full_scan)
        replies = [*result.replies, *block(headquarters, result.blocked, now)]
        if full_scan or queue.entries > len(result.replies):
            replies += block_rejected(headquarters, parameters, full_scan=full_scan)
            replies += explain_waiting(headquarters, parameters, of_queue=True)
        if full_scan:
            replies += explain_waiting(headquarters, parameters, of_queue=False)
            alarm(headquarters, now, waiting_seconds_max)
        statements = post_statements(headquarters, now, full_scan=full_scan)
        enqueue_replies(headquarters, [*replies, *statements], now)
        failpoint("release.before_commit")
    failpoint("release.after_commit")
    queue_is_full = queue.entries == TRANSACTIONS_MAX
    more = queue_is_full or len(result.replies) == rows_max
    return ReleasePass(len(result.replies), len(statements), queue_is_full=queue_is_full, more=more)


_GIVE_UP: Final = timedelta(seconds=GIVE_UP_SECONDS)

_BEGIN: Final = text(
    """
    SELECT pg_advisory_xact_lock(hashtextextended('tenten.release', 0)), set_config('work_mem', '64MB', true),
           set_config('random_page_cost', '1', true)
    """
)
"""One pass at a time. Intermediate results stay in memory; most rows are cached, so a lookup by key costs no more than
a sequential read.
"""
