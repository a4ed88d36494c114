"""The release of this program."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def release() -> str:
    """The version of the installed distribution; empty if the program runs from its sources."""
    try:
        return version("tenten-commerce")
    except PackageNotFoundError:
        return ""
