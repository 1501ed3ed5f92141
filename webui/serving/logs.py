"""What the server says of itself: one JSON object a line, each with the job that it is about."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from webui.jobs import current_job

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """time, level, logger, message; `job` where one is at work; what the call gave as `extra`; the exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if job := current_job.get():
            line["job"] = job
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(stream: TextIO = sys.stderr) -> logging.Handler:
    """Everything from INFO on of the program's own, from WARNING on of the libraries."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    for name in ("webui", "adaflow_core"):
        logging.getLogger(name).setLevel(logging.INFO)
    return handler
