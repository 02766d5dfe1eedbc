"""Log lines: one JSON object each. Requests' and answers' texts are never logged."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

# Most messages to remember.
MESSAGES = 1000


class JSONFormatter(logging.Formatter):
    """Formats a record, with the fields of `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Repeated(logging.Filter):
    """Limits repetitions of each warning or error in an interval, and reports their number in the next one.

    A server without free file descriptors would write thousands a second.
    """

    def __init__(self, most: int = 20, seconds: float = 60) -> None:
        super().__init__()
        self._most = most
        self._seconds = seconds
        self._seen: dict[tuple[str, str], list[float]] = {}  # start of the interval, and the count

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        if record.levelno < logging.WARNING:
            return True
        since, count = self._seen.get((record.name, str(record.msg)), (record.created, 0))
        if record.created - since >= self._seconds:
            if count > self._most:
                record.fields = {**getattr(record, "fields", {}), "left_out": int(count - self._most)}
            since, count = record.created, 0
        if len(self._seen) > MESSAGES:  # messages with variable parts differ each time
            self._seen.clear()
        self._seen[record.name, str(record.msg)] = [since, count + 1]
        return count < self._most


def fields(**values: Any) -> dict[str, Any]:
    """Extra fields of a log line: `log.info("...", extra=fields(request_id=...))`."""
    return {"fields": {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}}


def use_json() -> None:
    """Write all log lines to standard error, as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    handler.addFilter(Repeated())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
