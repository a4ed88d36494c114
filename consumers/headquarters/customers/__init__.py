"""The customers worker: the only writer of customers, in the database as on the topic."""
