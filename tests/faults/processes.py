"""Workers of headquarters as processes that can be killed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.forked import fork, fork_program
from tests.scenes import DEADLINE_SECONDS, Scene

_IN_COLUMNS: Final = """
from tenten.cli.main import main
from tenten.consumers.headquarters.customers import classify

classify.SMALL_BATCH_MAX = 0
main()
"""
"""A customers worker that handles small batches in columns, too, as those of thousands of records."""


class WorkerProcess:
    """One `tenten headquarters run`, or `tenten transactions run`."""

    def __init__(
        self, scene: Scene, failpoint: str | None, slot: int | None, log: Path, group: str, *, in_columns: bool = False
    ) -> None:
        environment = {
            **os.environ,
            "TENTEN_CONFIG": str(scene.toml),
            "TENTEN_HEADQUARTERS_URL": scene.url,
            "KAFKA_BOOTSTRAP_SERVERS": scene.bootstrap_servers,
        }
        environment.pop("TENTEN_FAILPOINT", None)
        if failpoint is not None:
            environment["TENTEN_FAILPOINT"] = failpoint
        words = [group, "run"] if slot is None else [group, "run", "--slot", str(slot)]
        self.log = log
        if in_columns:
            self._process = fork_program(_IN_COLUMNS, *words, directory=log.parent, log=log, environment=environment)
        else:
            self._process = fork(words, directory=log.parent, log=log, environment=environment)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal killed it."""
        return self._process.poll()

    def dies(self) -> int:
        """Wait until it has ended; return its exit code."""
        return self._process.wait(DEADLINE_SECONDS)

    def kill(self, after_seconds: float = 0.0) -> int:
        """Send SIGKILL after this time; return the exit code."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(after_seconds)
        self._process.kill()
        return self.dies()

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self._process.terminate()
        return self.dies()

    def check(self) -> None:
        """Fail if it has ended."""
        assert self.exit_code is None, f"the worker ended with {self.exit_code}: {self.logged()[-2000:]}"

    def logged(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")


@contextmanager
def worker_process(
    scene: Scene,
    failpoint: str | None = None,
    slot: int | None = None,
    group: str = "headquarters",
    *,
    in_columns: bool = False,
) -> Iterator[WorkerProcess]:
    """A worker of this group; killed at the end of the block if it still runs."""
    number = len(list(scene.toml.parent.glob("worker-*.log")))
    log = scene.toml.parent / f"worker-{number}.log"
    worker = WorkerProcess(scene, failpoint, slot, log, group, in_columns=in_columns)
    scene.workers.append(worker)
    try:
        yield worker
    finally:
        scene.workers.remove(worker)
        if worker.exit_code is None:
            worker.kill()
