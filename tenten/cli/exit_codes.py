"""The exit codes besides 0."""

from typing import Final

FAILED: Final = 1
"""Something failed, was refused, or differs."""
USAGE: Final = 2
"""The command line or a setting is wrong."""
UNHEALTHY: Final = 3
"""It runs, and has problems."""
