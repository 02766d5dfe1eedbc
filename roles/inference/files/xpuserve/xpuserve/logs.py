"""Lines of the log: one JSON object each. Nothing of what people ask, or are answered, is logged."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any


class JSONFormatter(logging.Formatter):
    """Writes a record, with what `fields` gave it."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def fields(**values: Any) -> dict[str, Any]:
    """What goes into a line as fields of its own: `log.info("...", extra=fields(request_id=...))`."""
    return {"fields": {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}}


def use_json() -> None:
    """Write everything that is logged to standard error, as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
