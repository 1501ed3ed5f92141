"""A region named by words of the source prompt: where the model's predictions change when these words are left out.

The difference is as coarse as the latents and vague at its edges, so the mask takes its edges from the frames.
"""

from __future__ import annotations

import re

import numpy as np

from adaflow_core.editing.place import LOCAL, prompt_difference
from adaflow_core.editing.place.cutout import Bools, Cutout
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.planning.analysis import source_latents
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan

# Deviation of the difference, as for `LOCAL`, below which what was found may be another thing.
CLEAR = 0.95
SURE = 8  # most frames from which the mask is carried to the others


def find_words(
    backbone: Backbone, plan: Plan, words: str, cache: Cache, monitor: Monitor
) -> tuple[dict[int, Bools], str]:
    """Find what `words` name: frame -> mask [H, W] for the frames in which it stands out most; `carry` does the rest.

    Also returns a sentence for the user if it hardly stands out, so that it may be another thing, else "". Raises
    AdaFlowError if it is not found, or not in one place.
    """
    source = plan.config.source_prompt
    other = without(source, words)
    latents = source_latents(backbone, plan.video, cache, monitor)
    embedded = backbone.embed(source), backbone.embed(other)
    difference = prompt_difference(backbone, latents, plan.video, *embedded, cache, monitor)
    spread = difference.std(axis=(1, 2))  # the mean is 1
    if spread.max() < LOCAL:
        raise AdaFlowError(f"{words!r} is not found in one place; name a thing that stands out, or paint the region")
    chosen = np.argsort(-spread)[: min(SURE, -(-len(spread) // 4))]
    chosen = np.sort(chosen[spread[chosen] >= LOCAL])  # the thing may be in sight for a few frames only
    frames, maps = plan.video.frames[chosen], difference[chosen]
    cutout = Cutout.learned(frames, maps)
    masks = [cutout.mask(*pair) for pair in zip(frames, maps, strict=True)]
    found = {int(t): mask for t, mask in zip(chosen, masks, strict=True) if mask.any() and not mask.all()}
    if not found:
        raise AdaFlowError(f"{words!r} is not found in the video; paint the region")
    if spread.max() >= CLEAR:
        return found, ""
    return found, f"{words!r} hardly stands out, so that the region may be another thing; look at it, or paint it"


def without(source_prompt: str, words: str) -> str:
    """Return the source prompt without `words` and an article before them; AdaFlowError if it lacks them."""
    if not source_prompt.strip():
        raise AdaFlowError("a region is named by words of the source prompt; say what is in the video, or paint it")
    named = r"\s+".join(map(re.escape, words.split()))
    found = re.search(rf"(?<![\w'-])(?:(?:an?|the)\s+)?{named}(?![\w'-])\s*", source_prompt, re.IGNORECASE)
    if found is None:
        raise AdaFlowError(
            f"{words!r} is not in the source prompt {source_prompt!r}; name words of it, or paint the region"
        )
    return source_prompt[: found.start()] + source_prompt[found.end() :]
