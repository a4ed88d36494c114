"""The 1010 job as a stream: every change of a customer, into a channel's own database.

prefetch.py               records of `customers`, from the channel's positions
snapshots.py              decoded, filtered to what the channel wants: one row per customer
apply.py                  into the three tables; postgresql.py and sqlite.py hold the statements of each database
../overlay.py             customers with edits that headquarters has not settled: snapshot plus edits
run.py                    the process that keeps a channel current
resync.py                 the full sync, while the tables stay complete and readable
../status.py              where a channel stands
"""
