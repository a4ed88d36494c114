"""Which server an address means, and the sentence about one that does not answer."""

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from tenten.failure_messages import explain
from tenten.runtime.error_codes import error_code, is_transient
from tenten.runtime.settings import Settings
from tenten.status.side_by_side import NoAnswer


def kafka_problem(settings: Settings, error: Exception) -> str:
    """The sentence about Kafka. Raises: an unexpected error."""
    servers = settings.kafka.get("bootstrap.servers")
    if isinstance(error, NoAnswer) or (servers and is_transient(error)):
        return f"Kafka at {servers} does not answer: {_remedy(str(servers))}"
    return _explained(error)


def database_problem(address: str, error: Exception) -> str:
    """The sentence about a database; the same for every database of a server that is away.

    Raises: an unexpected error.
    """
    url = make_url(address)
    is_away = isinstance(error, DBAPIError) and error_code(error) is None and is_transient(error)
    if url.drivername != "sqlite" and (is_away or isinstance(error, NoAnswer)):
        host = url.host or url.query.get("host") or "localhost"
        port = url.port or url.query.get("port") or 5432
        return f"PostgreSQL at {host}:{port} does not answer: {_remedy(str(host))}"
    if isinstance(error, NoAnswer):
        return f"the database {url.database} does not answer: check the disk that it is on"
    return _explained(error)


def _remedy(host: str) -> str:
    is_here = host.startswith(("/", "localhost", "127.", "[::1]"))
    runs = "check that it runs (`tenten local start` starts one of `tenten up`)" if is_here else "check that it runs"
    return f"{runs} and can be reached from here (`tenten doctor`)"


def _explained(error: Exception) -> str:
    sentence = explain(error)
    if sentence is None:
        raise error
    return sentence
