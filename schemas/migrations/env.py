"""What alembic runs: the history of one of the two databases, on the connection and in the transaction it is given."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    # Both databases take tables back when a transaction fails; alembic does not trust SQLite with that by itself.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
