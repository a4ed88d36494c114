"""The edge to the databases: engines, locks, migrations, and how customers become rows."""
