"""The transactional outbox of a channel: rows that the relay publishes to Kafka.

`table.py` has the statements on rows of any kind, `customer_events.py` and `transactions.py` those on the two kinds of
rows, `retention.py` finds rows to send again and rows to delete.
"""
