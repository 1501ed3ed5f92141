"""A region named by words of the source prompt: where the model's predictions change when these words are left out.

The difference is as coarse as latents and vague at its edges: the colours that it covers say where these are.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from adaflow_core.editing.place import place_of, prompt_difference
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan

SURE = 8  # frames at most from which the mask is carried to the others


def without(source_prompt: str, words: str) -> str:
    """The source prompt without `words` and an article before them."""
    if not source_prompt.strip():
        raise AdaFlowError("a region is named by words of the source prompt; say what is in the video, or paint it")
    named = r"\s+".join(map(re.escape, words.split()))
    found = re.search(rf"(?<![\w'-])(?:(?:an?|the)\s+)?{named}(?![\w'-])\s*", source_prompt, re.IGNORECASE)
    if found is None:
        raise AdaFlowError(f"{words!r} is not in the source prompt {source_prompt!r}; name words of it, or paint the region")
    return source_prompt[: found.start()] + source_prompt[found.end() :]
