"""Stories of crashes, two side by side in each test process: most of a story is waiting for the broker to notice that a
member of the group is gone. Each has topics and a database of its own.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

import pytest

from tests.databases import create_from_template, drop_database
from tests.scenes import Scene, set_scene

SIDE_BY_SIDE: Final = 2

Story = TypeVar("Story")


@contextmanager
def told_side_by_side(
    names: Sequence[str],
    tell: Callable[[Scene, str], Story],
    *,
    batch_records: int,
    servers: tuple[str, str],
    directories: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Story]]:
    """Begin these stories, and return them by name; each is waited for when it is asked for.

    `servers`: the addresses of the broker and of PostgreSQL.
    """
    bootstrap_servers, postgresql = servers
    with ExitStack() as ends, ThreadPoolExecutor(SIDE_BY_SIDE) as threads:

        def begin(name: str) -> Story:
            database = f"t{secrets.token_hex(6)}"
            ends.callback(drop_database, postgresql, database)
            url = create_from_template(postgresql, database, "headquarters")
            limits = {"batch_records_max": batch_records}
            scene = set_scene(directories.mktemp("story"), bootstrap_servers, f"{database}-", url, limits=limits)
            return tell(scene, name)

        begun = {name: threads.submit(begin, name) for name in names}
        yield lambda name: begun[name].result()
