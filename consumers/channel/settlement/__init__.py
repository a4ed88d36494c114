"""Settlement: headquarters' replies close a channel's customer events, orders, sales and ends of day.

run.py            the process
customers.py      replies to customer events
transactions.py   replies to orders, cash-and-carry sales and ends of day
"""
