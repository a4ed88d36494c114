"""Failures of local servers.

LocalServiceFailure
└── NotInstalled
"""

from tenten.runtime.errors import TentenError


class LocalServiceFailure(TentenError):
    """A local server could not be started or stopped; the message says which, why, and where its log is."""


class NotInstalled(LocalServiceFailure):
    """The package of a local server is missing; the message names it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not installed: pip install 'tenten-commerce[local]'")
