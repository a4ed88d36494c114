"""Logs: one line an event, key=value, on stderr; never personal data.

An exception is logged as its type, its code and where it was raised. Its text is left out unless it is our own: a
database quotes the row that it refuses.
"""

import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import TentenError

_FIRST: Final = ("timestamp", "level", "event")


def configure_logs(level: int = logging.INFO) -> None:
    """Send our logs to stderr, and the warnings of libraries in the same form. Called again, the last call counts."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_error,
    ]
    renderer = structlog.processors.LogfmtRenderer(key_order=_FIRST)
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


def _describe_error(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What is safe to say of an exception, in place of it and of its traceback."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event.update(error=type(error).__name__, code=error_code(error), at=_raised_at(error.__traceback__))
        if isinstance(error, TentenError):
            event["text"] = str(error)
    return event


def _raised_at(traceback: TracebackType | None) -> str | None:
    """File and line of the innermost frame."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"
