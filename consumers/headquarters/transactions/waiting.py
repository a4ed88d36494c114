"""The waiting transactions: those that a release pass checks, and those of them that can be released.

Each statement exists twice, by `full_scan`: over all that wait, or over the transactions of the release queue.
"""

from typing import Final

WAITING: Final = {
    True: "waiting.status IN ('waiting', 'blocked')",
    # The ids have no type of their own, so that PostgreSQL parses them as an array once. `coalesce` prevents a scan of
    # the index of all that wait.
    False: """
        waiting.transaction_id = ANY (CAST(:ids AS uuid[])) AND coalesce(waiting.status, '') IN ('waiting', 'blocked')
    """,
}
"""The condition that selects the transactions of a release pass."""

_RELEASABLE: Final = """
    SELECT waiting.transaction_id, waiting.channel_id, waiting.kind, waiting.legal_entity, waiting.customer_id,
           waiting.answer, customers.account_number,
           waiting.status = 'blocked' AS is_blocked, waiting.received_at, waiting.partition, waiting."offset"
    FROM retail_transactions AS waiting
    LEFT JOIN customers ON customers.customer_id = waiting.customer_id
    LEFT JOIN synchronization_log AS customer_event
           ON customer_event.event_id = waiting.customer_event_id AND customer_event.customer_id = waiting.customer_id
    WHERE {among}
      AND NOT (waiting.status = 'blocked' AND waiting.reasons::text ~ '"(cannot_be_written|unknown_channel)"')
      AND (
          waiting.customer_id IS NULL
          OR customers.erased_at IS NOT NULL
          OR customers.legal_entity = waiting.legal_entity AND (
              waiting.customer_event_id IS NULL
              OR customer_event.outcome NOT IN ('rejected', 'held')
              OR (
                  customer_event.outcome = 'rejected'
                  OR customer_event.outcome IS NULL AND waiting.received_at < :give_up
              ) AND (
                  waiting.delivery_address_id IS NULL
                  OR EXISTS (
                      SELECT FROM customer_addresses AS known
                      WHERE known.customer_id = waiting.customer_id AND known.address_id = waiting.delivery_address_id
                  )
              )
          )
      )
    ORDER BY is_blocked, waiting.received_at, waiting.partition, waiting."offset"
    LIMIT :rows_max
    FOR UPDATE OF waiting SKIP LOCKED
    """
RELEASABLE: Final = {full_scan: _RELEASABLE.format(among=among) for full_scan, among in WAITING.items()}
"""The transactions that can be released, in the order of arrival, blocked ones last. Rows that another transaction has
locked are left to the next pass.
"""
