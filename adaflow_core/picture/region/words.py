"""A region named by words of the source prompt: where the model's predictions change when these words are left out.

The difference is as coarse as latents and vague at its edges: the colours that it covers say where these are, and in
the end a graph cut (GrabCut, Rother et al. 2004, by OpenCV).
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from adaflow_core.editing.place import LOCAL, otsu, prompt_difference
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.region.carry import Bools, Colours, bins, cleaned, densities, guided, probability
from adaflow_core.planning.analysis import source_latents
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan

SURE = 8  # frames at most from which the mask is carried to the others
THRESHOLD = 1.15  # of the difference, in parts of the one that parts it best
COLOUR = 0.6  # what colours count for beside the difference
SLOPE = 2.0  # log odds of being inside, by the logarithm of the difference
ROUNDS = 3  # in which colours are learned from the mask, and the mask found by its colours
# Differences, in parts of the one that parts them best, below and above which the graph cut has no say; and its rounds.
# Chosen on the plain model's validation clips.
OUTSIDE, INSIDE = 0.6, 4.0
CUTS = 4
SMALLEST = 0.002  # of the frame: smaller pieces are taken for errors


def find_words(backbone: Backbone, plan: Plan, words: str, cache: Cache, monitor: Monitor) -> dict[int, Bools]:
    """Frame -> [H, W] for the frames in which the words' place stands out most; `carry` takes it to the others."""
    source = plan.config.source_prompt
    other = without(source, words)
    latents = source_latents(backbone, plan.video, cache, monitor)
    embedded = backbone.embed(source), backbone.embed(other)
    difference = prompt_difference(backbone, latents, plan.video, *embedded, cache, monitor)
    spread = difference.std(axis=(1, 2))  # of a mean of 1
    if spread.max() < LOCAL:
        raise AdaFlowError(f"{words!r} is not found in one place; name a thing that stands out, or paint the region")
    chosen = np.sort(np.argsort(-spread)[: min(SURE, -(-len(spread) // 4))])
    masks = edged(plan.video.frames[chosen], difference[chosen])
    found = {int(t): mask for t, mask in zip(chosen, masks, strict=True) if mask.any() and not mask.all()}
    if not found:
        raise AdaFlowError(f"{words!r} is not found in the video; paint the region")
    return found


def edged(frames: np.ndarray, difference: np.ndarray) -> list[Bools]:
    """The place of a difference [F, h, w] in frames [F, H, W, 3], with the frames' own edges."""
    size, parting = (frames.shape[2], frames.shape[1]), otsu(difference)
    found = SLOPE * np.log(np.maximum(difference, 1e-3) / (THRESHOLD * parting))
    prior = [cv2.resize(one.astype(np.float32), size).clip(-4, 4) for one in found]
    masks = [probability(one) for one in prior]
    for _ in range(ROUNDS):
        parts = [np.stack([mask > 0.7, mask < 0.3, mask < 0.3]) for mask in masks]
        colours = Colours(np.mean([densities(bins(f), part) for f, part in zip(frames, parts, strict=True)], axis=0), 0)
        masks = [guided(f, probability(odds + COLOUR * colours.odds(f))) for f, odds in zip(frames, prior, strict=True)]
    return [
        cleaned(cut_out(frame, mask > 0.5, cv2.resize(one.astype(np.float32), size) / parting), SMALLEST * mask.size)
        for frame, mask, one in zip(frames, masks, difference, strict=True)
    ]


def cut_out(frame: np.ndarray, mask: Bools, difference: np.ndarray) -> Bools:
    """`mask` [H, W] of a frame [H, W, 3] along the frame's own edges; `difference` [H, W] says where it must not go."""
    labels = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[difference < OUTSIDE] = cv2.GC_BGD
    labels[difference > INSIDE] = cv2.GC_FGD
    kinds = [(labels == kind).any() for kind in (cv2.GC_BGD, cv2.GC_PR_BGD, cv2.GC_FGD, cv2.GC_PR_FGD)]
    if not (kinds[0] or kinds[1]) or not (kinds[2] or kinds[3]):
        return mask
    cv2.setRNGSeed(0)  # its colours are clustered from random beginnings
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(frame[..., ::-1]), labels, None, *models, CUTS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def without(source_prompt: str, words: str) -> str:
    """The source prompt without `words` and an article before them."""
    if not source_prompt.strip():
        raise AdaFlowError("a region is named by words of the source prompt; say what is in the video, or paint it")
    named = r"\s+".join(map(re.escape, words.split()))
    found = re.search(rf"(?<![\w'-])(?:(?:an?|the)\s+)?{named}(?![\w'-])\s*", source_prompt, re.IGNORECASE)
    if found is None:
        raise AdaFlowError(
            f"{words!r} is not in the source prompt {source_prompt!r}; name words of it, or paint the region"
        )
    return source_prompt[: found.start()] + source_prompt[found.end() :]
