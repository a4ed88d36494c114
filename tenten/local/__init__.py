"""Apache Kafka and PostgreSQL on this machine, in the background, with nothing installed but Python packages.

    services = start(Path(".tenten"), print)
    services.bootstrap_servers              # "127.0.0.1:24817"
    database_url(services, "headquarters")  # "postgresql://postgres@/headquarters?host=..."
    stop(Path(".tenten"))

Most callers need `services.py`; `kafka.py` and `postgres.py` start and stop a single server.
"""

from tenten.local.directories import temporary_directory
from tenten.local.failures import LocalServiceFailure, NotInstalled
from tenten.local.kafka import BROKER_PROPERTIES, KAFKA_VERSION, LocalKafka, kafka_status, start_kafka, stop_kafka
from tenten.local.postgres import (
    LocalPostgres,
    create_database,
    delete_postgres,
    postgres_status,
    start_postgres,
    stop_postgres,
)
from tenten.local.services import LocalServices, database_url, delete, start, started_last, status, stop

__all__ = [
    "BROKER_PROPERTIES",
    "KAFKA_VERSION",
    "LocalKafka",
    "LocalPostgres",
    "LocalServiceFailure",
    "LocalServices",
    "NotInstalled",
    "create_database",
    "database_url",
    "delete",
    "delete_postgres",
    "kafka_status",
    "postgres_status",
    "start",
    "start_kafka",
    "start_postgres",
    "started_last",
    "status",
    "stop",
    "stop_kafka",
    "stop_postgres",
    "temporary_directory",
]
