"""Access to the databases: engines, locks, migrations, and the rows of customers."""
