"""What a server refuses before it looks at a request: connections, slow heads, foreign pages, bodies in parts."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Lock

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from tenten.runtime.errors import SettingsError
from tenten.web.health.routes import health_routes
from tenten.web.pages.sessions import Sessions
from tenten.web.serving import connections
from tenten.web.serving.address import HttpAddress, address_of, listen
from tenten.web.serving.certificate import Certificate
from tenten.web.serving.protection import Protection
from tenten.web.serving.server import serving
from tests.waiting import wait_for

SECONDS = 60.0
ORIGIN = "https://till.example.com"


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The port of a server with this application."""
    listener = listen(HttpAddress("127.0.0.1", 0))
    port = address_of(listener).port
    with serving(Protection(app, {"127.0.0.1"}, [ORIGIN]), listener, None, Event()):
        yield port


@pytest.fixture
def app() -> FastAPI:
    """An application with one route for each method."""
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def answer() -> str:
        return "answered"

    return app


def is_closed(client: socket.socket) -> bool:
    """Whether the server has ended the connection. Does not block."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_connections_without_a_request_are_few_and_short(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are too many are closed at once, those that begin a request and do not end it after a while; then
    others are answered.
    """
    # given
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 1.0)
    with served(app) as port:
        first = [socket.create_connection(("127.0.0.1", port), SECONDS) for _ in range(3)]
        for client in first:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        # when
        late = socket.create_connection(("127.0.0.1", port), SECONDS)
        # then
        wait_for(lambda: is_closed(late), "the refusal of the fourth connection")
        wait_for(lambda: all(map(is_closed, first)), "the end of the connections without a request")
        answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=SECONDS)
        assert answer.json() == "answered"
        for client in (*first, late):
            client.close()


def test_connection_may_ask_again(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit for a head is not one for a connection."""
    # given
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 0.3)
    with served(app) as port, httpx.Client(timeout=SECONDS) as client:
        waited = Event()
        # when
        answers = []
        for _ in range(3):
            answers.append(client.get(f"http://127.0.0.1:{port}/").json())
            waited.wait(0.4)
    # then
    assert answers == ["answered"] * 3


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example.com"}, 403),
        ("POST", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ("GET", {"Host": "evil.example.com"}, 421),
    ],
)
def test_foreign_pages_and_bodies_in_parts_are_refused(
    app: FastAPI, method: str, headers: dict[str, str], status: int
) -> None:
    """By what a browser says of a request, which no page can change; a link to this server may be followed."""
    with served(app) as port:
        # when
        answer = httpx.request(method, f"http://127.0.0.1:{port}/", headers=headers, timeout=SECONDS)
    # then
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "no-store"


def make_certificate(directory: Path, name: str) -> Certificate:
    """A new key with a certificate that it signs."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = Certificate(certificate=directory / f"{name}.crt", key=directory / f"{name}.key")
    files.certificate.write_bytes(made.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_certificate_of_another_key_is_refused_at_the_start(app: FastAPI, tmp_path: Path) -> None:
    """Otherwise the process would run, and serve nothing."""
    # given
    one, other = make_certificate(tmp_path, "one"), make_certificate(tmp_path, "other")
    mixed = Certificate(certificate=one.certificate, key=other.key)
    # when, then
    with (
        pytest.raises(SettingsError, match="two PEM files that belong together"),
        serving(app, listen(HttpAddress("127.0.0.1", 0)), mixed, Event()),
    ):
        raise AssertionError("it must not start")


def test_many_who_ask_for_health_share_one_check() -> None:
    """They take one thread, however long the check takes; others are answered meanwhile."""
    # given
    app, go_on, lock, checks = FastAPI(), Event(), Lock(), [0]

    def slow() -> str | None:
        with lock:
            checks[0] += 1
        assert go_on.wait(SECONDS)
        return "away"

    app.include_router(health_routes("store", [("database", slow)], CollectorRegistry()))

    @app.get("/blocking")
    def blocking() -> str:
        return "answered"

    with served(app) as port, ThreadPoolExecutor(20) as many:
        url = f"http://127.0.0.1:{port}"
        # when
        asked = [many.submit(httpx.get, f"{url}/readyz", timeout=SECONDS) for _ in range(20)]
        wait_for(lambda: checks[0] > 0, "the check")
        # then
        assert httpx.get(f"{url}/blocking", timeout=SECONDS).json() == "answered"
        go_on.set()
        assert {answer.result().status_code for answer in asked} == {503}
    assert checks[0] == 1


def test_wrong_tokens_lock_nobody_out() -> None:
    """A stranger who tries tokens must not keep those out who have the right one."""
    # given
    sessions = Sessions("houston", {"clerk": "right-token-of-a-store"}, secure=False)
    # when
    for attempt in range(100):
        assert sessions.role_of(f"wrong{attempt}") is None
    # then
    assert sessions.role_of("\ud800") is None
    assert sessions.role_of("right-token-of-a-store") == "clerk"
