"""One line for each thing that happened: event and fields, to standard error or a file."""

import logging
import sys
from typing import TextIO

import structlog


class LogLevelError(ValueError):
    """A log level that does not exist; the message names those that do."""


def configure_logs(level: str, to: TextIO | None = None) -> None:
    """Set up structlog for this process: coloured for a terminal, logfmt for a file."""
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise LogLevelError(f"log level '{level}' is none of {', '.join(levels).lower()}")
    out = to or sys.stderr
    terminal = out.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event"), bool_as_flag=False)
    )
    exceptions = [] if terminal else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
