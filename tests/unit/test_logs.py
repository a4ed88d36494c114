"""Logs: their form, and what never stands in them."""

import logging
import sqlite3
from collections.abc import Iterator

import pytest
import structlog

from tenten.runtime.errors import LockHeld
from tenten.runtime.logs import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is the process's own: it is put back afterwards."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_event_is_one_line_of_keys_and_values_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A line begins with time, level and event; what needs quotes has them, and a line break makes no second line."""
    # given
    configure_logs()

    # when
    structlog.get_logger().info("batch", topic="customers", partition=3, reason="two words", text="a\nb")

    # then
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("timestamp=20")
    assert err.endswith('Z level=info event=batch topic=customers partition=3 reason="two words" text=a\\nb\n')


def test_error_is_logged_without_what_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    """A database quotes what it refuses; the log has the error's type, its code and its place, and no traceback."""
    # given
    configure_logs()
    database = sqlite3.connect(":memory:")

    # when
    try:
        database.execute("SELECT ada@example.com")
    except sqlite3.OperationalError as error:
        structlog.get_logger().exception("refused")
        logging.getLogger("library").warning("refused too", exc_info=error)
    database.close()

    # then
    ours, theirs = capsys.readouterr().err.splitlines()
    assert "event=refused error=OperationalError code=SQLITE_ERROR at=test_logs.py:" in ours
    assert 'event="refused too" logger=library error=OperationalError' in theirs
    assert "ada" not in ours + theirs


def test_sentence_of_our_own_error_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Our errors say what to do, and hold no personal data."""
    # given
    configure_logs()

    # when
    structlog.get_logger().error("ended", exc_info=LockHeld("a relay runs already"))

    # then
    assert 'error=LockHeld code= at= text="a relay runs already"' in capsys.readouterr().err


def test_level_says_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the level nothing is logged, and of libraries nothing below a warning."""
    # given
    configure_logs(logging.WARNING)

    # when
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("library").info("quiet")

    # then
    assert "quiet" not in (logged := capsys.readouterr().err)
    assert "event=loud" in logged
