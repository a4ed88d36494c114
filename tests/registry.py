"""A real schema registry: Apicurio, which has Confluent's HTTP interface, from its published archive.

The archive (160 MB) is downloaded from Maven Central to the Maven cache.
"""

import json
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock

from tenten.local.java import find_java
from tenten.local.ports import free_port

VERSION: Final = "3.3.3"
_READY_SECONDS_MAX: Final = 120.0


class Registry:
    """A registry that can be stopped and restarted with its data at the same address. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its Confluent-compatible interface."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def __enter__(self) -> Self:
        try:
            self._unpack(_archive())
        except (tarfile.TarError, EOFError, OSError):
            # An earlier download was incomplete.
            _archive().unlink()
            self._unpack(_archive())
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _unpack(self, path: Path) -> None:
        with tarfile.open(path) as archive:
            archive.extractall(self._directory, filter="data")

    def start(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        if self._process is not None:
            return
        options = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": self._port,
            "quarkus.management.host": "127.0.0.1",
            "quarkus.management.port": free_port(),
            # A file, so that the data survive a restart.
            "apicurio.datasource.url": f"jdbc:h2:file:{self._directory / 'schemas'}",
        }
        log = self._directory / "registry.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    find_java(),
                    "-Xmx512m",
                    # Starts in half the time; the optimising compiler does not pay for so short a run.
                    "-XX:TieredStopAtLevel=1",
                    *(f"-D{name}={value}" for name, value in options.items()),
                    "-jar",
                    "quarkus-run.jar",
                ],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while not self._answers():
            assert self._process.poll() is None, f"the registry ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"the registry does not answer:\n{log.read_text()[-3000:]}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """The JSON of its response, requested without the code under test."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return json.load(response)

    def _answers(self) -> bool:
        try:
            self.ask("/subjects")
        except OSError:
            return False
        return True


def _archive() -> Path:
    """The archive in the Maven cache, downloaded if missing."""
    from jgo.maven import MavenContext

    with FileLock(Path(tempfile.gettempdir()) / "tenten-registry.lock"):
        component = MavenContext().project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
        return Path(component.artifact(classifier="all", packaging="tar.gz").resolve())
