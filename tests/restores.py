"""Accidents at headquarters: its database put back to an earlier copy, and a topic deleted and created again."""

import psycopg
from psycopg import sql

from tenten.kafka.topics_admin import admin_client, apply_topics, topic_exists
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic
from tests.waiting import wait_for


def back_up(url: str) -> str:
    """Copy a database, which nobody uses, in its current state; the address of the copy."""
    name = _name_of(url)
    with psycopg.connect(_server_of(url), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(f"{name}_backup"), sql.Identifier(name))
        )
    return url.replace(name, f"{name}_backup")


def restore(url: str, backup: str) -> None:
    """Put the copy in the database's place. Closes all connections, as a failover does."""
    name = sql.Identifier(_name_of(url))
    with psycopg.connect(_server_of(url), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(_name_of(backup)), name))


def _name_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def _server_of(url: str) -> str:
    return url.replace(_name_of(url), "postgres")


def recreate(settings: Settings, topic: Topic) -> None:
    """Delete a topic and create it again, empty, under another id."""
    delete_topic(settings, topic)
    apply_topics(settings)
    wait_for(lambda: topic_exists(settings, settings.topic(topic)), "the new topic")


def delete_topic(settings: Settings, topic: Topic) -> None:
    """Delete a topic, and wait until the broker does not know it any more."""
    name = settings.topic(topic)
    admin = admin_client(settings)
    admin.delete_topics([name])[name].result()
    wait_for(lambda: name not in admin.list_topics(timeout=10).topics, "the deletion")
