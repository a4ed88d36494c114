"""Directories of local servers. They hold customers' data, so only their owner can read them."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from tenten.runtime.private_files import create_private_directory, create_private_file

_TRAVERSABLE: Final = 0o711
"""For root: a server that runs as another user passes through, and lists nothing."""


def create_directory(directory: Path) -> Path:
    """The absolute path of a directory, created with its parents if missing. No existing directory is changed."""
    directory = directory.absolute()
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    create_private_directory(directory)
    if runs_as_root():
        for path in missing:
            path.chmod(_TRAVERSABLE)
    return directory


def temporary_directory(prefix: str) -> Path:
    """A new directory of ours in the system's directory for temporary files; the caller deletes it."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    if runs_as_root():
        directory.chmod(_TRAVERSABLE)
    return directory


def write_private(path: Path, text: str) -> None:
    """Write a file; a new one can be read by its owner only."""
    create_private_file(path)
    path.write_text(text)


def runs_as_root() -> bool:
    """Whether this process runs as root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def barrier_to(path: Path, user_id: int) -> Path | None:
    """The first directory on the way to a path that a user may not pass through, judged by its mode; None if none."""
    path = path.resolve()
    for directory in reversed((path, *path.parents)):
        status = directory.stat()
        bit = stat.S_IXUSR if status.st_uid == user_id else stat.S_IXOTH
        if stat.S_ISDIR(status.st_mode) and not status.st_mode & bit:
            return directory
    return None
