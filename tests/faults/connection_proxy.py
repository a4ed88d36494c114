"""A network connection from a store to its broker that can be cut, frozen and slowed: a proxy for the broker.

intact   data from each side reaches the other
cut      connections end, and so does each new connection
frozen   connections stay open, and no data passes: half open, as behind a dead router
slow     data passes in small pieces
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, Final, Literal

State = Literal["intact", "cut", "frozen", "slow"]

_PIECE_BYTES: Final = 65_536
_SLOW_BYTES: Final = 1_024
_SLOW_SECONDS: Final = 0.05
_CLOSED_SECONDS: Final = 0.1
_SECONDS: Final = 10.0


class ConnectionProxy:
    """Forwards connections from one port of 127.0.0.1 to another. Its event loop runs in a separate thread."""

    def __init__(self, port: int, to_port: int) -> None:
        self.refused = 0
        """Connections that were ended or refused because it was cut."""
        self.held = 0
        """Pieces of data held back while it was frozen."""
        self.slowed = 0
        """Pieces of data delayed while it was slow."""
        self._port = port
        self._to_port = to_port
        self._state: State = "intact"
        self._loop = asyncio.new_event_loop()
        self._thaw = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def run(self) -> None:
        """Serve until `end`."""
        self._loop.run_forever()
        self._loop.close()

    def begin(self) -> None:
        """Listen on the port. Raises: `OSError` if another program uses it."""
        self._thaw.set()
        self._call(self._listen())

    def become(self, state: State) -> None:
        """Change the state; return when it has changed."""
        self._call(self._become(state))

    def end(self) -> None:
        """Cut all connections and end `run`."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._become("cut")
        # Transports close in the next turn of the loop.
        await asyncio.sleep(_CLOSED_SECONDS)

    async def _become(self, state: State) -> None:
        self._state = state
        if state == "frozen":
            self._thaw.clear()
        else:
            self._thaw.set()
        if state == "cut":
            connections = [*self._connections]
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            self.refused += len(connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state == "cut":
            self.refused += 1
            writer.transport.abort()
            return
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        # `become("cut")` cancels connections.
        with suppress(OSError, asyncio.CancelledError):
            await self._connect(reader, writer)
        # Also when the other side did not accept.
        writer.transport.abort()
        self._connections.discard(connection)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions of a connection, until either ends."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        directions = [
            asyncio.create_task(self._forward(reader, far_writer)),
            asyncio.create_task(self._forward(far_reader, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            far_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_SLOW_BYTES if self._state == "slow" else _PIECE_BYTES):
                if self._state == "slow":
                    self.slowed += 1
                    await asyncio.sleep(_SLOW_SECONDS)
                if self._state == "frozen":
                    self.held += 1
                await self._thaw.wait()
                writer.write(piece)
                await writer.drain()


@contextmanager
def proxied_connection(port: int, to_port: int) -> Iterator[ConnectionProxy]:
    """Run a proxy during the block, first in the state `intact`."""
    proxy = ConnectionProxy(port, to_port)
    thread = Thread(target=proxy.run, name="proxy")
    thread.start()
    try:
        proxy.begin()
        yield proxy
    finally:
        proxy.end()
        thread.join(_SECONDS)
    assert not thread.is_alive()
