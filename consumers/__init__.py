"""What reads a topic: headquarters, distribution and settlement of a channel. Never imports `producers`."""
