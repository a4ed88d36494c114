"""Disks that are full in a moment: small file systems in memory.

Mounting them needs root, or sudo without a password.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = 4096
_SUDO: Final = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A file system of its own."""

    directory: Path

    def fill(self) -> None:
        """Leave no space."""
        with self._ballast.open("ab", buffering=0) as ballast:
            while left := os.statvfs(self.directory).f_bavail:
                # Others may be faster.
                with suppress(OSError):
                    ballast.write(bytes(left * _BLOCK))

    def make_room(self) -> None:
        """Free the space again."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"


@contextmanager
def small_disk(directory: Path, megabytes: int, *, owner: int | None = None) -> Iterator[SmallDisk]:
    """A disk of this size at this directory, which is created; `owner` is the user that it belongs to."""
    directory.mkdir()
    options = f"size={megabytes}m,mode=0755,uid={os.geteuid() if owner is None else owner}"
    subprocess.run([*_SUDO, "mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield SmallDisk(directory=directory)
    finally:
        subprocess.run([*_SUDO, "umount", "--lazy", directory], check=True)
