"""Real processes killed at every row of the crash table."""
