"""Replies close what a channel is waiting for: customers' events, orders, sales, ends of day."""
