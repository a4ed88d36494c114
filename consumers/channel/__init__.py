"""The processes that read topics in a channel, distribution and settlement, and their shared modules."""
