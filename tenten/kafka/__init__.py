"""The edge to Kafka: configurations, topics, readers, and the exactly-once session."""
