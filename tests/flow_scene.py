"""A scene for tests of the whole way: headquarters and its channels, each part as it runs in production, in threads."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal

from sqlalchemy import Table, select

from tenten.consumers.channel import loop
from tenten.consumers.channel.distribution import run as distribution
from tenten.consumers.channel.settlement import run as settlement
from tenten.producers import OpenChannel, open_channel
from tenten.producers.relay import run as relay
from tenten.runtime.settings import Settings
from tests.conftest import NewDatabase
from tests.databases import channel_tables
from tests.scenes import Scene, set_scene
from tests.threads import Worker

HOUSTON: Final = "houston"
DALLAS: Final = "dallas"

Part = Literal["relay", "settlement", "distribution", "loop"]
PARTS: Final[tuple[Part, ...]] = ("relay", "loop")
"""The threads of `tenten channel run`: the loop settles and distributes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Headquarters with the channels houston and dallas."""

    scene: Scene
    settings: Settings

    def with_channel(self, name: str, **values: Any) -> "Flow":
        """The same with other settings of this channel."""
        channels = {**self.settings.channels, name: self.settings.channel(name).model_copy(update=values)}
        return Flow(scene=self.scene, settings=self.settings.model_copy(update={"channels": channels}))

    @contextmanager
    def opened(self, name: str = HOUSTON) -> Iterator[OpenChannel]:
        """Open a channel, with tables."""
        channel_tables(self.settings.channel(name).database)
        with open_channel(self.settings, name) as channel:
            yield channel

    @contextmanager
    def running(self, *parts: Part, channel: str = HOUSTON) -> Iterator[None]:
        """These parts of a channel, for as long as the block. The error of each is raised."""
        workers = []
        with ExitStack() as ends:
            for part in parts:
                workers.append(Worker(partial(self._run, part, channel)))
                ends.callback(workers[-1].stop)
            yield
        for worker in workers:
            worker.check()

    def _run(self, part: Part, channel: str, stop: Event) -> None:
        match part:
            case "relay":
                relay.run(channel, self.settings, stop)
            case "settlement":
                settlement.run(self.settings, channel, stop)
            case "distribution":
                distribution.run(self.settings, channel, stop)
            case "loop":
                loop.run(self.settings, channel, stop)


def rows(channel: OpenChannel, table: Table) -> list[dict[str, Any]]:
    """A table's rows, ordered by primary key."""
    with channel.reading() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]


def set_flow(
    directory: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase, houston: str, **more: Any
) -> Flow:
    """Topics and tables; `houston` says whether that channel has postgresql or sqlite. `more` goes to `set_scene`."""
    scene = set_scene(directory, bootstrap_servers, prefix, new_database("headquarters"), **more)
    flow = Flow(scene=scene, settings=scene.settings)
    return flow.with_channel(HOUSTON, database=new_database("channel")) if houston == "postgresql" else flow
