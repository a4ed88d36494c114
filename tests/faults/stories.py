"""Crash stories, each with its own topics and database. Two run at the same time in each test process: most of a story
is waiting until the broker notices that a member of the group is dead.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

import pytest

from tests.databases import create_from_template, drop_database
from tests.scenes import Scene, set_scene

PARALLEL_STORIES: Final = 2

Story = TypeVar("Story")


def fixture_of_stories(
    run_story: Callable[[Scene, str], Story], failpoints: Sequence[str], batch_records: int
) -> Callable[..., Iterator[Callable[[str], Story]]]:
    """A fixture that starts a story for each of these failpoints; its value waits for the story of a failpoint."""

    @pytest.fixture(scope="module")
    def stories(
        bootstrap_servers: str, postgresql: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Callable[[str], Story]]:
        with _running(run_story, failpoints, batch_records, (bootstrap_servers, postgresql), tmp_path_factory) as found:
            yield found

    return stories


@contextmanager
def _running(
    run_story: Callable[[Scene, str], Story],
    failpoints: Sequence[str],
    batch_records: int,
    servers: tuple[str, str],
    directories: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Story]]:
    bootstrap_servers, postgresql = servers
    with ExitStack() as ends, ThreadPoolExecutor(PARALLEL_STORIES) as threads:

        def run(failpoint: str) -> Story:
            database = f"t{secrets.token_hex(6)}"
            ends.callback(drop_database, postgresql, database)
            url = create_from_template(postgresql, database, "headquarters")
            limits = {"batch_records_max": batch_records}
            scene = set_scene(directories.mktemp("story"), bootstrap_servers, f"{database}-", url, limits=limits)
            return run_story(scene, failpoint)

        started = {failpoint: threads.submit(run, failpoint) for failpoint in failpoints}
        yield lambda failpoint: started[failpoint].result()
