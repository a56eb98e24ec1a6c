"""Structured logs: constant event names plus fields, one JSON object a line, on standard error.

A secret is held as `Secret` everywhere, and prints as its fingerprint. What a caller sent is never logged raw: bodies
and header values not at all, paths without their query.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from proxy.model.secret import Secret
from proxy.model.settings import Log as LogSettings
from proxy.obs.access_lines import AccessLines
from proxy.obs.output import Output, Stream

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_ours = logging.getLogger("serinus")  # has no records: it has the level

AccessLog = Callable[..., None]
Log = structlog.typing.FilteringBoundLogger


class _Writer:
    """Writes lines, and does not fail: a full disk or a closed pipe must not stop the proxy."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    log = debug = info = warning = warn = error = critical = exception = fatal = msg


def configure(level: str, style: str, stream: Stream = sys.stderr) -> Log:
    """Set up logging for the process, other libraries' included, and return the logger to hand down."""
    renderer: Any = structlog.processors.JSONRenderer(_to_json)
    if style == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    processors: list[Any] = [
        _drop_below_level,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        renderer,
    ]
    wrapper = structlog.make_filtering_bound_logger(logging.DEBUG)
    log: Log = structlog.wrap_logger(_Writer(stream), processors, wrapper).bind()  # bound once, not at each event
    _adopt_standard_logging(log)
    set_level(level)
    return log


def set_level(level: str) -> None:
    """The least level that is logged from now on, by this process."""
    _ours.setLevel(LEVELS[level])
    logging.getLogger().setLevel(max(LEVELS[level], logging.WARNING))


def _drop_below_level(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if not _ours.isEnabledFor(LEVELS.get(method, logging.ERROR)):
        raise structlog.DropEvent
    return event


def access_to(settings: LogSettings, output: Output, log: Log, also: Mapping[str, object]) -> AccessLog:
    """Where the access log goes, when there is one; `also` is in each of its lines, as it is in those of `log`."""
    return AccessLines(output, also=also) if settings.format == "json" else access_log(log)


def _to_json(event: dict[str, Any], **_: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=_shown).decode()
    except UnicodeEncodeError:  # of a file name that is no UTF-8; this encoder escapes what the fast one refuses
        return json.dumps(event, default=_shown)


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, Secret) else str(value)


class _Adopted(logging.Handler):
    """Hands the records of asyncio, aiohttp and others to our log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        method = getattr(self._log, level if level in LEVELS else "error")
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: the library's mistake, not its caller's
            message = str(record.msg)
        method("library_log", logger=record.name, message=message, exc_info=record.exc_info or None)


def _adopt_standard_logging(log: Log) -> None:
    logging.getLogger().handlers[:] = [_Adopted(log)]


def access_log(log: Log) -> AccessLog:
    """Writes one line a request."""
    return lambda **fields: log.info("request", **fields)
