"""Avro encoding and decoding of topic values: single records, small batches, and whole batches in columns."""
