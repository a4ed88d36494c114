"""The contracts: Avro files, topics, the wire format, and the tables of both databases.

Everything else may import this package; it imports nothing of the project.
"""
