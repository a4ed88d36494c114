"""Who is believed to visit the dashboard: sessions, tokens, and headers of a proxy."""

import pytest
from fastapi import Request

from tenten.runtime.settings.http import HttpSettings
from tenten.web.dashboard.access import Access, NotAllowed, Role
from tenten.web.pages.login import ForeignForm, SignInFirst
from tenten.web.pages.sessions import Sessions

TOKENS = {"viewer": "v" * 43, "operator": "o" * 43}


def access(**settings: object) -> Access:
    """Of a dashboard with these settings of `[http]`."""
    return Access(Sessions("test", TOKENS, secure=False), HttpSettings.model_validate(settings))


def request(*headers: tuple[str, str], client: str = "127.0.0.1") -> Request:
    """A request with these headers, from this address."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "client": (client, 4711)})


@pytest.mark.parametrize(
    ("addresses", "client", "is_believed"),
    [
        (None, "127.0.0.1", True),
        (None, "::1", True),
        (None, "::ffff:127.0.0.1", True),
        (None, "10.0.0.7", False),
        (["10.0.0.0/24"], "10.0.0.7", True),
        (["10.0.0.0/24"], "10.0.1.7", False),
        (["10.0.0.0/24"], "127.0.0.1", False),
        (["10.0.0.7"], "testclient", False),
    ],
)
def test_user_of_a_proxy_is_believed_only_from_its_address(
    addresses: list[str] | None, client: str, is_believed: bool
) -> None:
    """The address is that of the connection; `X-Forwarded-For` does not count."""
    # given
    more = {} if addresses is None else {"proxy_addresses": addresses}
    guard = access(proxy_user_header="X-User", proxy_operators=["Grâce"], **more)
    asked = request(("X-User", "Grâce"), ("X-Forwarded-For", "127.0.0.1"), client=client)
    # when
    if is_believed:
        visitor = guard.visitor(asked)
        # then
        assert (visitor.role, visitor.name, visitor.via) == (Role.OPERATOR, "Grâce", "proxy")
    else:
        # then
        with pytest.raises(SignInFirst):
            guard.visitor(asked)


def test_header_counts_only_where_a_proxy_is_configured() -> None:
    """Without `proxy_user_header` nobody can name a user."""
    with pytest.raises(SignInFirst):
        access().visitor(request(("X-User", "grace"), ("X-Forwarded-User", "grace")))


@pytest.mark.parametrize("values", [("grace", "eve"), ("grace", "grace"), ("",), ("x" * 65,), ("gra\x00ce",)])
def test_header_that_does_not_name_one_user_is_refused(values: tuple[str, ...]) -> None:
    """Such as one of the browser beside that of the proxy."""
    guard = access(proxy_user_header="X-User")
    with pytest.raises(NotAllowed):
        guard.visitor(request(*(("X-User", value) for value in values)))


def test_form_key_is_of_one_user_in_one_role() -> None:
    """A viewer's key, or another user's, does not send an operator's form; and a viewer may not act with their own."""
    # given
    guard = access(proxy_user_header="X-User", proxy_operators=["grace", "ada"])
    grace, ada, eve = (request(("X-User", name)) for name in ("grace", "ada", "eve"))
    keys = {name: guard.visitor(asked).form_key for name, asked in (("grace", grace), ("ada", ada), ("eve", eve))}
    # then
    assert guard.operator(grace, keys["grace"]).name == "grace"
    for foreign in (keys["ada"], keys["eve"], ""):
        with pytest.raises(ForeignForm):
            guard.operator(grace, foreign)
    assert guard.sender(eve, keys["eve"]).role is Role.VIEWER
    with pytest.raises(NotAllowed):
        guard.operator(eve, keys["eve"])


def test_programs_present_a_token_of_either_role() -> None:
    """As `Authorization: Bearer`; anything else is refused."""
    guard = access()
    for token in TOKENS.values():
        assert guard.may_read(request(("Authorization", f"Bearer {token}")))
    for header in ("Bearer wrong", f"Basic {TOKENS['viewer']}", "Bearer ", ""):
        assert not guard.may_read(request(("Authorization", header)))
