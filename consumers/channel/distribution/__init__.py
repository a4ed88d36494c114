"""The 1010 job as a stream: every change of a customer, into a channel's own database.

read_position.py   the channel's position in `customers`, and whether it needs a resync
snapshot_stream.py reads and decodes the next batch while the previous one is written, and moves the positions
prefetch.py        decodes what was read; stops partitions with unreadable records
small_batch.py     small batches as plain values, with prepared statements
apply.py           changes into the three tables
run.py             the process: the channel's loop without replies
resync.py          the full sync, while the tables stay complete and readable; its reading part is replay.py
surplus.py         customers that a resync has not found in the topic
"""
