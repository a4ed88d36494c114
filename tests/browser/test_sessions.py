"""Sessions of the dashboard and of a store's screen, as somebody uses them who has copied a cookie."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import httpx
import pytest

from tests.browser.conftest import Shop
from tests.browser.dashboard_scene import DashboardScene
from tests.waiting import wait_for

STREAMS_MAX: Final = 20
SECONDS: Final = 60


@pytest.fixture(params=["dashboard", "store"])
def address_and_token(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The address of a server, and a token of it."""
    if request.param == "dashboard":
        dashboard: DashboardScene = request.getfixturevalue("dashboard")
        return dashboard.address, dashboard.token("operator")
    shop: Shop = request.getfixturevalue("shop")
    return shop.address, shop.token


def test_signing_out_ends_a_session_whoever_has_its_cookie(address_and_token: tuple[str, str]) -> None:
    """No page and no stream of events is left for it; other sessions go on. A session follows twenty pages at most."""
    # given
    address, token = address_and_token
    with ExitStack() as stack:
        own, other = (stack.enter_context(client(address)) for _ in range(2))
        for signing_in in (own, other):
            assert signing_in.post("/login", data={"token": token, "name": "Ana"}).headers["location"] == "/"
        thief = stack.enter_context(client(address, dict(own.cookies)))
        assert thief.get("/").status_code == 200
        # when
        streams = [stack.enter_context(thief.stream("GET", "/events")) for _ in range(STREAMS_MAX)]
        lines = [stream.iter_lines() for stream in streams]
        # then
        assert {next(line).partition(":")[0] for line in lines} <= {"retry", "event", "id"}
        assert status_of_stream(thief) == 429
        # when
        streams.pop().close()
        # then
        wait_for(lambda: status_of_stream(thief) == 200, "room for another stream", SECONDS)
        assert status_of_stream(other) == 200
        # when
        assert own.post("/logout").headers["location"] == "/login"
        # then
        assert thief.get("/").status_code == 303
        assert status_of_stream(thief) in {303, 401}
        assert other.get("/").status_code == 200


def client(address: str, cookies: Mapping[str, str] | None = None) -> httpx.Client:
    """A browser without script."""
    return httpx.Client(base_url=address, cookies=dict(cookies or {}), headers={"Accept": "text/html"}, timeout=SECONDS)


def status_of_stream(asking: httpx.Client) -> int:
    """The status of a further stream of events, which is closed at once."""
    with asking.stream("GET", "/events") as answer:
        return answer.status_code
