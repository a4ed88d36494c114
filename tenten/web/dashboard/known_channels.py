"""The channels of headquarters' database, with what it holds of theirs and has rejected of theirs."""

from typing import Final

from sqlalchemy import Connection, text

from tenten.web.dashboard.stores import KnownChannel


def read_known_channels(headquarters: Connection) -> dict[str, KnownChannel]:
    """The channels by name."""
    return {
        row.channel_id: KnownChannel(
            channel_id=row.channel_id,
            legal_entity=row.legal_entity,
            address_books=tuple(row.address_books),
            offline_customers=row.offline_customers,
            suspended_at=row.suspended_at,
            suspended_reason=row.suspended_reason,
            held=row.held,
            held_since=row.held_since,
            blocked_since=row.blocked_since,
            blocked_date=row.blocked_date,
            rejected=row.rejected,
        )
        for row in headquarters.execute(_CHANNELS)
    }


_CHANNELS: Final = text(
    """
    SELECT channel.channel_id, channel.legal_entity, channel.address_books, channel.offline_customers,
           channel.suspended_at, channel.suspended_reason, coalesce(held.events, 0) AS held, held.since AS held_since,
           blocked.received_at AS blocked_since, blocked.business_date AS blocked_date,
           coalesce(rejected.events, 0) AS rejected
    FROM channels AS channel
    LEFT JOIN (
        SELECT channel_id, count(*) AS events, min(held_at) AS since
        FROM held_events WHERE judged_at IS NULL GROUP BY channel_id
    ) AS held USING (channel_id)
    LEFT JOIN (
        SELECT DISTINCT ON (channel_id) channel_id, received_at, business_date
        FROM statements WHERE status = 'blocked' ORDER BY channel_id, received_at
    ) AS blocked USING (channel_id)
    LEFT JOIN (
        SELECT channel_id, count(*) AS events FROM synchronization_log
        WHERE outcome = 'rejected' AND received_at > now() - interval '1 day' GROUP BY channel_id
    ) AS rejected USING (channel_id)
    """
)
