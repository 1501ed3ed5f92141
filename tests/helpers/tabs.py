"""What comes back to a tab with a reload, by its names."""

from __future__ import annotations

import json
from typing import Any

from webui.events.common.outputs import ModelShown, RestoredOutputs
from webui.events.session import SETTINGS, SessionEvents
from webui.jobs.queue import Begun
from webui.studio import Studio


def restored(
    studio: Studio, session: dict[str, Any], begun: Begun | None = None
) -> tuple[RestoredOutputs, ModelShown, dict[str, Any]]:
    """What a tab of this session had, what is shown of its model, and its settings."""
    values = SessionEvents(studio).restore(json.dumps(session), [], begun or Begun())
    first, last = len(RestoredOutputs._fields), len(RestoredOutputs._fields) + len(ModelShown._fields)
    settings = dict(zip(SETTINGS, values[last:], strict=True))
    return RestoredOutputs(*values[:first]), ModelShown(*values[first:last]), settings
