"""The P-job: from the outbox to the topics."""
