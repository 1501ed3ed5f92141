"""HTML and gallery items made from plans, jobs and scores. All text is escaped. No components, no events."""

from webui.views.job import aside, progress, status
from webui.views.model import toy, vocabulary, vocabulary_title, working_sizes
from webui.views.pictures import Item, image, strip
from webui.views.plan import (
    cost,
    facts,
    frame_view,
    grid_choices,
    keyframe_items,
    match_items,
    stale,
    token_items,
)
from webui.views.result import edit_name, history, how, rims, scores
from webui.views.text import duration, line, notes, notice, quote
from webui.views.video import copy_line, video_line

__all__ = [
    "Item",
    "aside",
    "copy_line",
    "cost",
    "duration",
    "edit_name",
    "facts",
    "frame_view",
    "grid_choices",
    "history",
    "how",
    "image",
    "keyframe_items",
    "line",
    "match_items",
    "notes",
    "notice",
    "progress",
    "quote",
    "rims",
    "scores",
    "stale",
    "status",
    "strip",
    "token_items",
    "toy",
    "video_line",
    "vocabulary",
    "vocabulary_title",
    "working_sizes",
]
