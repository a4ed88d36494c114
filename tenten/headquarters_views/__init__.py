"""Queries of headquarters' database for the `transactions` and `statement` commands."""
