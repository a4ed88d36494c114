"""Files and directories that only their owner can read: databases and broker data hold personal data.

Only new ones get these permissions; those of existing files and directories never change.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def create_private_directory(path: Path) -> None:
    """Create the directory and its missing parents with mode 0700. Idempotent. Raises: `OSError`."""
    if path.is_dir():
        return
    create_private_directory(path.parent)
    path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)


def create_private_file(path: Path) -> None:
    """Create an empty file with mode 0600, unless it exists. Raises: `OSError`."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
