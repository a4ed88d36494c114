"""The headquarters consumer: the only writer of customers, in the database as on the topic."""
