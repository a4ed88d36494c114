"""Headquarters' dashboard: `tenten headquarters web`.

    access             who may see and do what; signing in, or the user whom a proxy names
    actions            the record of what operators did, and whose personal data they saw
    watch              what Kafka tells, followed by two threads
    snapshot           what every page shows of the state, read once for all browsers
    site               renders pages and parts of them
    *_pages            the pages

It reads headquarters' database and topics, and never a store's database.
"""
