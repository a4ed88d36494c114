"""A stand-in for a broker that was frozen: it answers requests for metadata, and every other answer names no broker.

No real broker can be made to answer like this at will. It speaks ApiVersions and Metadata of Kafka's protocol, and
ends connections that ask for anything else.
Source: https://kafka.apache.org/protocol
"""

import socketserver
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Final

_METADATA: Final = 3
_API_VERSIONS: Final = 18
_VERSIONS: Final = {_METADATA: 4, _API_VERSIONS: 3}
"""By request: the highest version that it answers."""

_NAMED: Final = (0, 1, 2, 8, 9, 10, 11, 12, 13, 14, 22, 24, 25, 26, 28, 32, 60)
"""Requests that it only names, as every broker does: otherwise a client refuses to be a transactional producer."""

_LEADER_NOT_AVAILABLE: Final = 5
_UNSUPPORTED_VERSION: Final = 35
_NO_CONTROLLER: Final = -1
_NODE: Final = 1


class StandInBroker(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.answers = 0
        """Requests for metadata that were answered."""

    @property
    def address(self) -> str:
        """The address for `bootstrap.servers`."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Answer the requests of one connection until it ends."""
        with suppress(OSError, struct.error):
            while size := self.rfile.read(4):
                answer = self._answer(self.rfile.read(*struct.unpack(">i", size)))
                if answer is None:
                    return
                self.wfile.write(struct.pack(">i", len(answer)) + answer)

    def _answer(self, request: bytes) -> bytes | None:
        key, version, correlation, name_bytes = struct.unpack_from(">hhih", request)
        body = request[10 + max(0, name_bytes) :]
        if key == _API_VERSIONS:
            return struct.pack(">i", correlation) + _api_versions(version)
        if key == _METADATA and version == _VERSIONS[_METADATA]:
            assert isinstance(self.server, StandInBroker)
            self.server.answers += 1
            port = self.server.server_address[1] if self.server.answers % 2 else None
            return struct.pack(">i", correlation) + _metadata(body, port)
        return None


def _api_versions(version: int) -> bytes:
    """The response to ApiVersions: flexible from version 3 on; an unknown version is refused in version 0."""
    if version > _VERSIONS[_API_VERSIONS]:
        return struct.pack(">hi", _UNSUPPORTED_VERSION, 0)
    versions = {**dict.fromkeys(_NAMED, 1), **_VERSIONS}
    keys = [struct.pack(">hhh", key, 0, highest) for key, highest in versions.items()]
    if version == 3:
        return struct.pack(">hB", 0, len(keys) + 1) + b"".join(key + b"\0" for key in keys) + struct.pack(">iB", 0, 0)
    throttled = b"" if version == 0 else struct.pack(">i", 0)
    return struct.pack(">hi", 0, len(keys)) + b"".join(keys) + throttled


def _metadata(body: bytes, port: int | None) -> bytes:
    """The response to Metadata, version 4: the broker at this port is the controller (None: no broker), and no
    requested topic has a leader.
    """
    (count,) = struct.unpack_from(">i", body)
    topics, at = [], 4
    for _ in range(max(0, count)):
        (name_bytes,) = struct.unpack_from(">h", body, at)
        name = body[at : at + 2 + name_bytes]
        at += len(name)
        topics.append(struct.pack(">h", _LEADER_NOT_AVAILABLE) + name + struct.pack(">?i", False, 0))
    brokers = [] if port is None else [struct.pack(">ih9sih", _NODE, 9, b"127.0.0.1", port, -1)]
    controller = _NO_CONTROLLER if port is None else _NODE
    throttled_and_brokers = struct.pack(">ii", 0, len(brokers)) + b"".join(brokers)
    return throttled_and_brokers + struct.pack(">hii", -1, controller, len(topics)) + b"".join(topics)


@contextmanager
def stand_in_broker() -> Iterator[StandInBroker]:
    """A stand-in that answers during the block."""
    with StandInBroker() as broker:
        Thread(target=broker.serve_forever, daemon=True).start()
        try:
            yield broker
        finally:
            broker.shutdown()
