"""What reads topics in a channel: distribution and settlement, and what they share."""
