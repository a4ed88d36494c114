"""The 1010 job as a stream: every change of a customer, into a channel's own database.

read_position.py   the channel's position in `customers`, and whether it needs a resync
prefetch.py        reads and decodes the next batch while the previous one is written
apply.py           changes into the three tables
run.py             the process that keeps a channel current
resync.py          the full sync, while the tables stay complete and readable
"""
