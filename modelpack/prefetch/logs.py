"""The daemon's log: one JSON object a line on stderr, for a collector to read.

Owns the format and that no secret gets into it. Leaves out what is logged: every module has its
own logger, and the library around it configures none.

Each line has ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message``; ``model``,
``reference``, ``digest`` and ``stage`` where the caller gave them, and ``exception`` with the
traceback of what was logged with one:

    _logger.info("ready after %.1f s", 3.2, extra={"model": "chat", "digest": digest})
    {"time": "2026-03-01T08:00:00.123Z", "level": "info", "logger": "modelpack.prefetch.daemon",
     "message": "ready after 3.2 s", "model": "chat", "digest": "sha256:…"}
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

from modelpack.errors import UsageError
from modelpack.prefetch.redaction import redact

LEVELS: Final = ("debug", "info", "warning", "error")
FIELDS: Final = ("model", "reference", "digest", "stage")
"""What a caller may add by ``extra``; anything else in it is not shown."""

# The end says what happened, and is kept.
_MAX_TRACEBACK: Final = 16 * 1024

# Each request of theirs is a line at "info"; what matters of them is in our own lines.
_CHATTY: Final = ("httpx", "httpcore", "aiohttp.access", "asyncio", "urllib3", "grpc")


class JsonFormatter(logging.Formatter):
    """Makes one line of JSON of a record, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one object; what cannot be formatted is shown as it was given."""
        line = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_message(record)),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = redact(str(value))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = _traceback(self.formatException(record.exc_info))
        # ASCII only: half a surrogate pair in a file's name cannot make a line unwritable.
        return json.dumps(line)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        """Give the line up: where the log itself cannot be written, nothing can be told."""
        del record


def configure(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Log everything from ``level`` up as JSON lines to ``stream``, by default stderr.

    Replaces what was configured before, so it may be called again, as after a reload.

    Raises:
        UsageError: no such level.
    """
    if level not in LEVELS:
        raise UsageError(f"log level {level[:40]!r} is none of {', '.join(LEVELS)}")
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args!r}"


def _traceback(text: str) -> str:
    return redact(text[-_MAX_TRACEBACK:], limit=_MAX_TRACEBACK)


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
