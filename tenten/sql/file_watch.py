"""Watch a file for changes of its content or its times, without polling: inotify, on Linux."""

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

_MODIFIED: Final = 0x2
_ATTRIBUTES: Final = 0x4
_EVENT_BYTES: Final = 4096


class FileWatch:
    """A watched file. Its descriptor is readable after a change, until `clear`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def clear(self) -> None:
        """Forget the changes so far."""
        with suppress(BlockingIOError):
            while len(os.read(self.descriptor, _EVENT_BYTES)) == _EVENT_BYTES:
                pass

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def watch(file: Path) -> FileWatch | None:
    """Watch an existing file; None where that is impossible: on other systems, or at the system's limit of watches."""
    if sys.platform != "linux":
        return None
    library = _library()
    descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if library.inotify_add_watch(descriptor, os.fsencode(file), _MODIFIED | _ATTRIBUTES) < 0:
        os.close(descriptor)
        return None
    return FileWatch(descriptor)


@cache
def _library() -> Any:
    """The C library of this process."""
    return ctypes.CDLL(None)
