"""A database user with the privileges of a worker, some of which a test may revoke."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import psycopg
from sqlalchemy import make_url


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRole:
    """A role, and the address with which it connects."""

    name: str
    url: str


@contextmanager
def worker_role(url: str) -> Iterator[WorkerRole]:
    """A role that may do in this database what a worker does."""
    name = f"worker_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
        ):
            connection.execute(statement.encode())
        own_url = make_url(url).set(username=name, password=name).render_as_string(hide_password=False)
        try:
            yield WorkerRole(name=name, url=own_url)
        finally:
            for statement in (f"DROP OWNED BY {name}", f"DROP ROLE {name}"):
                connection.execute(statement.encode())
