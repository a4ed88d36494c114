"""Settlement: headquarters' replies close a channel's customer events, orders, sales and ends of day.

run.py              the process: the channel's loop without snapshots
reply_stream.py     one topic of replies: records are read ahead, and the position
settle.py           settles replies within the loop's transaction
replies.py          records as replies
customers.py        replies to customer events
transactions.py     replies to orders, cash-and-carry sales and ends of day
"""
