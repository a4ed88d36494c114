"""What a till prefers, as its header says it in any form that RFC 7240 allows."""

import pytest
from starlette.requests import Request

from tenten.web.till_api.headers import wait_seconds


@pytest.mark.parametrize(
    ("preference", "seconds"),
    [
        ("wait=2", 2),
        ('wait="2"', 2),
        ("respond-async, wait=5", 5),
        ("return=minimal; foo, Wait = 7 ; x=y", 7),
        ("wait=0", 0),
        ("wait=031", 30),
        ("wait=99999999999999999999", 30),
        ("respond-async", 0),
        ("await=2", None),
        ("wait=soon", None),
        ("", None),
    ],
)
def test_preferred_time_is_read_and_limited(preference: str, seconds: int | None) -> None:
    """With `respond-async` the time comes first; without either, the channel decides."""
    request = Request({"type": "http", "headers": [(b"prefer", preference.encode())]})
    assert wait_seconds(request) == seconds
