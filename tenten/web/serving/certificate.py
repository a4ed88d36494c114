"""The files of TLS."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its private key, in PEM."""

    certificate: Path
    key: Path
