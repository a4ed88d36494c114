"""Customers from a file."""
