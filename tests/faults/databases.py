"""Copies of a database that has its tables: making them anew for each story takes longer than the story."""

import psycopg
from psycopg import sql


def copy_database(postgresql: str, template: str, database: str) -> None:
    """Make a database as the template is, to which nobody may be connected."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(database), sql.Identifier(template)))


def drop_database(postgresql: str, database: str) -> None:
    """Drop it, by force: a process that the test killed may not have been missed by the server yet."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
