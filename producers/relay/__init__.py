"""The relay (P-job): publishes the outbox to Kafka."""
