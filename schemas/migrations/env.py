"""Run by alembic: migrates one of the two databases, on the caller's connection and in its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    # Both databases roll back DDL; alembic assumes that SQLite does not.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
