"""Rules about customers (pure), and the edges to Kafka, databases and settings. Imports only `schemas`."""
