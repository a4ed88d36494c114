"""Logs: their formats, and that they contain no personal data."""

import json
import logging
import os
import pathlib
import pty
import re
import sqlite3
import sys
from collections.abc import Iterator

import pytest
import structlog

from tenten.runtime.errors import DatabaseRefused, LockHeld, SettingsError
from tenten.runtime.logs import FORMAT_VARIABLE, configure_logs
from tenten.sql.engine import open_database


@pytest.fixture(autouse=True)
def _restore_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the environment's format; restore the process's logging afterwards."""
    monkeypatch.delenv(FORMAT_VARIABLE, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_logfmt_is_one_line_of_keys_and_values_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A line begins with time, level and event; values are quoted where necessary, and line breaks are escaped."""
    # given
    configure_logs()

    # when
    structlog.get_logger().info("batch", topic="customers", partition=3, reason="two words", text="a\nb")

    # then
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("timestamp=20")
    assert err.endswith('Z level=info event=batch topic=customers partition=3 reason="two words" text=a\\nb\n')


def test_exception_is_logged_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A database quotes the statement; the log has only the error's type, code and location."""
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


def test_location_of_an_exception_starts_at_the_package_root(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """Several modules have the same name; the path tells them apart."""
    # given
    configure_logs()
    file = tmp_path / "store.db"
    file.write_bytes(b"not a database " * 100)

    # when
    try:
        open_database(f"sqlite:///{file}").connect()
    except DatabaseRefused:
        structlog.get_logger().exception("failed")

    # then
    assert re.search(r"error=DatabaseRefused code=SQLITE_NOTADB at=sql/engine\.py:\d+ ", capsys.readouterr().err)


def test_text_of_our_own_exception_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Our errors say what to do, and contain no personal data."""
    # given
    configure_logs()

    # when
    structlog.get_logger().error("ended", exc_info=LockHeld("a relay is already running"))

    # then
    assert 'error=LockHeld code= at= text="a relay is already running"' in capsys.readouterr().err


def test_events_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries log from warnings on, whatever the level."""
    # given
    configure_logs(logging.WARNING)

    # when
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("library").info("quiet")

    # then
    assert "quiet" not in (logged := capsys.readouterr().err)
    assert "event=loud" in logged


def test_json_is_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Values keep their types."""
    # given
    configure_logs(log_format="json")

    # when
    structlog.get_logger().warning("batch", partition=3, reason=None)
    logging.getLogger("library").warning("two words")

    # then
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"level": "warning", "event": "batch", "partition": 3, "reason": None}
    assert (theirs["event"], theirs["logger"]) == ("two words", "library")


def test_console_lines_have_no_colours_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """On request the readable format also goes to a file."""
    # given
    configure_logs(log_format="console")

    # when
    structlog.get_logger().info("batch", topic="customers")

    # then
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info +\] batch topic=customers\n", capsys.readouterr().err)


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_terminal_gets_console_lines_and_no_color_is_respected(
    monkeypatch: pytest.MonkeyPatch, no_color: str, is_coloured: bool
) -> None:
    """On a terminal the default format is `console`; `NO_COLOR` removes its colours."""
    # given
    reader, writer = pty.openpty()
    monkeypatch.setenv("NO_COLOR", no_color)
    with os.fdopen(writer, "w", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        configure_logs()

        # when
        structlog.get_logger().info("batch", topic="customers")

        # then
        line = os.read(reader, 1_000).decode()
    os.close(reader)
    assert ("\x1b[" in line) is is_coloured
    assert "timestamp=" not in line
    assert "batch" in line


def test_format_comes_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`TENTEN_LOG_FORMAT` replaces the default; an argument takes precedence."""
    # given
    monkeypatch.setenv(FORMAT_VARIABLE, "json")

    # when
    configure_logs()
    structlog.get_logger().info("first")
    configure_logs(log_format="logfmt")
    structlog.get_logger().info("second")

    # then
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["event"] == "first"
    assert second.endswith("event=second")


def test_unknown_format_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message lists the formats."""
    # given
    monkeypatch.setenv(FORMAT_VARIABLE, "xml")

    # then
    with pytest.raises(SettingsError, match="TENTEN_LOG_FORMAT=xml: write console, logfmt, json"):
        configure_logs()
