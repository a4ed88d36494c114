"""Asynchronous customers between stores and headquarters: one event stream, one account number per customer."""
