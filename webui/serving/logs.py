"""The server's log: one JSON object per line, with the job it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from webui.jobs.queue import current_job

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """time, level, logger and message; `job` while one runs; the fields given as `extra`; the exception."""

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
    """Log to `stream`: this program's messages from INFO on, those of libraries from WARNING on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    for name in ("webui", "adaflow_core"):
        logging.getLogger(name).setLevel(logging.INFO)
    return handler
