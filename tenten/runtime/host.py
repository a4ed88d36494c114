"""The name of this machine."""

import socket
from typing import Final

HOST_CHARACTERS_MAX: Final = 255


def this_host() -> str:
    """The name of this machine, for records of who did something: printable, at most 255 characters."""
    return "".join(filter(str.isprintable, socket.gethostname()))[:HOST_CHARACTERS_MAX]
