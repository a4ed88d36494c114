"""Events of a channel for those who follow it through HTTP.

feed      follows the table of events: one thread and one connection for all readers of a process
streams   server-sent events
"""
