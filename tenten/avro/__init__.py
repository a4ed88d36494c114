"""Values as they cross a topic: one record, a batch of them in columns, a few without columns."""
