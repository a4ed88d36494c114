"""Settlement: headquarters' replies close a channel's customer events, orders, sales and ends of day.

run.py              the process
reply_stream.py     one topic of replies: from the records to the database and the position
replies.py          records as replies
customers.py        replies to customer events
transactions.py     replies to orders, cash-and-carry sales and ends of day
"""
