"""Customers, orders, sales, loyalty cards and ends of day in a store."""
