"""The contracts: Avro files, topics, messages, and the tables of both databases with their migrations.

Everything else may import this package; it imports nothing of the project.
"""
