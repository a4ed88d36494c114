"""What holds for a customer and a transaction, wherever it is asked. No SQL, no Kafka."""
