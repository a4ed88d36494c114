"""The tables of headquarters' database and of a channel's."""
