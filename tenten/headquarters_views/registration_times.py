"""How long new customers took to get their number: from the change at the till to the decision of headquarters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from tenten.runtime.error_codes import error_code

MINUTES: Final = 60
_MILLISECONDS_MAX: Final = 2_000
_QUERY_CANCELED: Final = "57014"


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteOfTimes:
    """The new customers that headquarters has numbered in one minute."""

    minute_at: datetime
    customers: int
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationTimes:
    """The times of the last hour. They include the time that a store was cut off, and the difference of its clock."""

    customers: int
    p50_seconds: float | None
    """None without new customers."""
    p99_seconds: float | None
    minutes: Sequence[MinuteOfTimes]
    """The oldest first; minutes without new customers are missing."""


def read_registration_times(headquarters: Connection) -> RegistrationTimes | None:
    """The times of the last hour; None if there are too many to look at within two seconds."""
    try:
        with headquarters.begin_nested():
            headquarters.execute(text(f"SET LOCAL statement_timeout = {_MILLISECONDS_MAX}"))
            rows = headquarters.execute(_TIMES).all()
    except DBAPIError as error:
        if error_code(error) != _QUERY_CANCELED:
            raise
        return None
    minutes = tuple(
        MinuteOfTimes(minute_at=row.minute_at, customers=row.customers, p50_seconds=row.p50, p99_seconds=row.p99)
        for row in rows
        if row.minute_at is not None
    )
    whole = next((row for row in rows if row.minute_at is None), None)
    has_any = whole is not None and whole.customers > 0
    return RegistrationTimes(
        customers=whole.customers if whole is not None else 0,
        p50_seconds=whole.p50 if whole is not None and has_any else None,
        p99_seconds=whole.p99 if whole is not None and has_any else None,
        minutes=minutes,
    )


_TIMES: Final = text(
    """
    SELECT minute_at, count(*) AS customers,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds) AS p99
    FROM (
        SELECT date_trunc('minute', received_at) AS minute_at,
               greatest(0, extract(epoch FROM received_at - occurred_at))::double precision AS seconds
        FROM synchronization_log
        WHERE received_at > now() - interval '1 hour' AND kind = 'created' AND outcome = 'synchronized'
    ) AS created
    GROUP BY GROUPING SETS ((minute_at), ())
    ORDER BY minute_at
    """
)
