"""Logs on stderr; never personal data. Every event is in `tenten.runtime.log_events`.

An exception is logged as its type, its code and its location. Its text is omitted unless it is our own: a database
quotes the row that it refuses.
"""

import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, get_args

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import SettingsError, TentenError

LogFormat = Literal["console", "logfmt", "json"]

FORMAT_VARIABLE: Final = "TENTEN_LOG_FORMAT"

_FIRST: Final = ("timestamp", "level", "event")
_PACKAGE: Final = Path(__file__).parents[1]


def configure_logs(level: int = logging.INFO, log_format: LogFormat | None = None) -> None:
    """Send our logs, and the warnings of libraries, to stderr in this format. The last call counts.

    Default format: `TENTEN_LOG_FORMAT`, else `console` on a terminal and `logfmt` otherwise.
    Raises: `SettingsError` for an unknown format in the environment.
    """
    log_format = log_format or _default_format()
    is_console = log_format == "console"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_console else "iso", utc=not is_console),
        _describe_error,
    ]
    renderer = _renderer(log_format)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(()), structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _default_format() -> LogFormat:
    configured = os.environ.get(FORMAT_VARIABLE)
    if not configured:
        return "console" if sys.stderr.isatty() else "logfmt"
    for log_format in get_args(LogFormat):
        if configured == log_format:
            return log_format  # type: ignore[no-any-return]  # get_args has no types
    raise SettingsError(f"{FORMAT_VARIABLE}={configured}: write {', '.join(get_args(LogFormat))}")


def _renderer(log_format: LogFormat) -> Processor:
    match log_format:
        case "console":
            return structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"), pad_event_to=0
            )
        case "logfmt":
            return structlog.processors.LogfmtRenderer(key_order=_FIRST)
        case "json":
            return structlog.processors.JSONRenderer(ensure_ascii=False, default=str)


def _describe_error(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its type, code, location and, if it is our own, its text."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event.update(error=type(error).__name__, code=error_code(error), at=_raised_at(error.__traceback__))
        if isinstance(error, TentenError):
            event["text"] = str(error)
    return event


def _raised_at(traceback: TracebackType | None) -> str | None:
    """File and line of the innermost frame; the path starts at the package root or in the library directory."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{_short_path(Path(traceback.tb_frame.f_code.co_filename))}:{traceback.tb_lineno}"


def _short_path(file: Path) -> str:
    if file.is_relative_to(_PACKAGE):
        return file.relative_to(_PACKAGE).as_posix()
    parts = file.parts
    return "/".join(parts[parts.index("site-packages") + 1 :]) if "site-packages" in parts else file.name
