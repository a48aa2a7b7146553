"""What this process says about itself: one line per event, to standard error.

Nothing here removes secrets from lines. Nothing puts them there: loggers are given codes, counts and ids, and an exception
is described by its type and the places it passed through, in the message itself. Its text is never used, because texts of
exceptions repeat values; libraries that hand theirs to a logger find formatters here that do the same.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import PurePath
from types import TracebackType
from typing import IO

import orjson
from hypercorn.logging import Logger as HypercornLogger

_PLACES_MAX = 8
_MEMBERS_MAX = 8


def describe(error: BaseException) -> str:
    """An exception as its type and places, innermost last, with what caused it; members of a group in brackets."""
    described = f"{type(error).__qualname__}{_places(error.__traceback__)}"
    if isinstance(error, BaseExceptionGroup):
        described += f"[{', '.join(describe(member) for member in error.exceptions[:_MEMBERS_MAX])}]"
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return described if cause is None else f"{described} from {describe(cause)}"


def failed(what: str, error: BaseException) -> None:
    """Log that ``what``, a name of ours, failed unexpectedly."""
    logging.getLogger("dispatcher.http").error("%s failed: %s", what, describe(error))


class PlainFormatter(logging.Formatter):
    """``2026-11-22T10:00:00.123Z WARNING dispatcher.http: message``."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record.created)} {record.levelname} {record.name}: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        return line if error is None else f"{line} ({describe(error)})"


class JsonFormatter(logging.Formatter):
    """The same as one JSON object a line: ``at``, ``level``, ``logger``, ``message`` and, of an exception, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": _moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["error"] = describe(error)
        return orjson.dumps(line).decode()


def configure(level: str, *, json_lines: bool = False, stream: IO[str] = sys.stderr) -> None:
    """Send every logger's lines at ``level`` and above to ``stream``. Replaces what was configured before."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if json_lines else PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It tells of every statement of a migration; which were applied is enough, and whoever applies them says so.
    logging.getLogger("yoyo").setLevel(logging.WARNING)
    # The sandbox reports with them. They tell of every request with its URL, whose query may hold a webhook's secret.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def describe_the_unhandled() -> None:
    """From now on this process describes exceptions nobody handled, where Python would print their texts."""

    def show(error: BaseException | None) -> None:
        if error is not None:
            sys.stderr.write(f"Unhandled: {describe(error)}\n")

    sys.excepthook = lambda kind, error, traceback: show(error)
    sys.unraisablehook = lambda unraisable: show(unraisable.exc_value)
    threading.excepthook = lambda unhandled: show(unhandled.exc_value)


class ServerLog(HypercornLogger):
    """Hypercorn's log through ours. No access log: paths and queries of requests are nobody's business here."""

    def __init__(self, config: object) -> None:
        self.access_logger = None
        self.error_logger = logging.getLogger("dispatcher.http")

    async def exception(self, message: str, *args: object, **kwargs: object) -> None:
        """Log the exception being handled, described."""
        failed("the server", sys.exc_info()[1] or RuntimeError())


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _places(traceback: TracebackType | None) -> str:
    places: deque[str] = deque(maxlen=_PLACES_MAX)
    while traceback is not None:
        places.append(f"{PurePath(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return f" at {' > '.join(places)}" if places else ""
