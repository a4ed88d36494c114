"""Kafka: client configurations, topics, readers and the exactly-once session."""
