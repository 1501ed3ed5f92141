"""Finds the place of an edit where the model's noise predictions differ under its two prompts, as DiffEdit does.

DiffEdit: arXiv 2210.11427.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.editing.place.cutout import Cutout, otsu
from adaflow_core.editing.place.wording import Wording
from adaflow_core.model.attention import PassState, frame_attention
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import add_noise
from adaflow_core.model.memory import in_passes, to_device
from adaflow_core.motion.flow import one_opencv_thread
from adaflow_core.planning.matching import blurred
from adaflow_core.progress import Monitor, in_threads
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import Embedding
from adaflow_core.video.types import Video

TIMESTEPS = (400, 600)  # of 1000; at lower ones the picture decides more than the prompt, at higher ones all is vague
# The standard deviation of the difference, as a part of its mean, from which on it counts as in one place. On the drawn
# world's validation scenes it is 1.1 to 1.9 for objects and colours, 0.3 to 0.4 for backgrounds and most styles.
LOCAL = 0.7
# The cut-out must cover this share of the coarse map of the thing; on ten validation clips it covered 0.55 to 0.93.
AGREED = 0.4
LEARNED = 8  # keyframes, at most, from which the look of a thing is learned
PIXELS = 2**16  # to which a frame is scaled, at most, to cut a thing out of it: that takes a tenth of a second


def pass_rows(backbone: Backbone) -> int:
    """The most frames of a pass of `prompt_difference`; half on a GPU, whose memory must hold two rows of each."""
    return backbone.rows() // 2 if backbone.device.type == "cuda" else backbone.rows()


@torch.inference_mode()
def prompt_difference(
    backbone: Backbone,
    latents: np.ndarray,  # [T, 4, h, w]
    video: Video,
    source: Embedding,
    other: Embedding,
    cache: Cache,
    monitor: Monitor,
) -> np.ndarray:
    """Return [T, h, w] float32 the difference of the noise predicted under the two prompts; each frame's mean is 1."""
    (T, _, h, w), rows = latents.shape, pass_rows(backbone)
    prompts = torch.cat([source.prompt_embeds, other.prompt_embeds])

    def build(folder: Path) -> dict[str, Any]:
        out = backbone.team.array(folder / "difference.npy", np.float32, (T, h, w))
        own, size = backbone.share(T, rows)
        state = PassState(attend=backbone.attend, check=monitor.check, prompts=2)
        with frame_attention(backbone.unet, state), monitor.stage("place", own.stop - own.start) as stage:

            def run(ids: np.ndarray, count: int) -> None:
                x = to_device(latents[ids], backbone.device).float()
                found = torch.stack([_difference(backbone, x, prompts, t) for t in TIMESTEPS])
                out[ids[:count]] = backbone.fetch(found.mean(dim=0)[:count])
                stage.advance(count)

            in_passes(np.arange(T)[own], size, run)
        return {}

    key = cache_key(
        video=video.digest,
        model=backbone.fingerprint,
        prompts=[source.text, other.text],
        timesteps=TIMESTEPS,
        rows=rows,
    )
    folder, _, _ = cache.get("place", key, build, monitor.note, together=True)
    return np.load(folder / "difference.npy", mmap_mode="r")


def _difference(backbone: Backbone, latents: Tensor, prompts: Tensor, timestep: int) -> Tensor:  # -> [F, h, w]
    # The same noise for every frame, so that it does not make frames differ.
    noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(timestep)).to(latents.device)
    timestep = round(timestep / 1000 * (backbone.schedule.train_steps - 1))
    noisy = add_noise(backbone.schedule, latents, noise, timestep)
    prompt_embeds = prompts.repeat_interleave(len(latents), dim=0)
    before, after = backbone.predict(torch.cat([noisy, noisy]), timestep, prompt_embeds).chunk(2)
    size = blurred((after - before).square().sum(dim=1, keepdim=True).sqrt(), boxes=2)
    return (size / size.mean(dim=(2, 3), keepdim=True).clamp(min=1e-8))[:, 0]


def find_place(
    backbone: Backbone,
    latents: np.ndarray,  # [T, 4, h, w]
    video: Video,
    keyframes: np.ndarray,  # [K]
    source: Embedding,
    positive: Embedding,
    words: Wording,  # of the two prompts
    cache: Cache,
    monitor: Monitor,
) -> np.ndarray | None:
    """Return [T, h, w] float32 0..1, 1 where the edit takes place; None: all over the frame.

    Keyframes alone decide what counts as a difference, so that a draft, which has no other frames, finds the same place
    (on a GPU up to rounding).
    """
    if words.style:
        return None
    other = positive if words.kept is None else backbone.embed(words.kept)
    difference = prompt_difference(backbone, latents, video, source, other, cache, monitor)
    if words.kept is None:
        return place_of(difference, keyframes, threshold=0.85, margin=1)
    coarse = place_of(difference, keyframes, threshold=1.3, margin=0)
    if coarse is None:
        return None
    kept = _thing_that_stays(backbone, video, difference, keyframes, words.kept, source.text, cache, monitor)
    return 1 - likely(kept, coarse, keyframes)


def likely(
    kept: np.ndarray,  # [T, h, w] 0..1, the thing's cut-out
    coarse: np.ndarray,  # [T, h, w] 0..1, the thing's coarse map
    keyframes: np.ndarray,  # [K]; they decide for most frames, as changing between the two from frame to frame flickers
) -> np.ndarray:
    """Return `kept`, or `coarse` if probably only a part was cut out, such as a face without the jacket below it."""
    both, whole = (x.sum(axis=(1, 2)) for x in (np.minimum(kept, coarse), coarse))
    if both[keyframes].sum() < AGREED * whole[keyframes].sum():
        return coarse
    return np.where((both < AGREED / 2 * whole)[:, None, None], coarse, kept)


def _thing_that_stays(
    backbone: Backbone,
    video: Video,
    difference: np.ndarray,  # [T, h, w]
    keyframes: np.ndarray,  # [K]; the look of the thing is learned from some of them
    left: str,  # the source prompt without the thing
    source: str,
    cache: Cache,
    monitor: Monitor,
) -> np.ndarray:
    """Return [T, h, w] float32 0..1, the share of each token that the thing covers, found with the frames' own edges.

    The difference of the predictions has no sharp edges: if it covered too much, the old surroundings would stay as a
    rim around the thing.
    """
    T, h, w = difference.shape

    def small(t: int) -> np.ndarray:  # [H', W', 3] uint8
        frame = np.asarray(video.frames[t])
        scale = min(1.0, math.sqrt(PIXELS / (frame.shape[0] * frame.shape[1])))
        size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)

    def build(folder: Path) -> dict[str, Any]:
        out = backbone.team.array(folder / "kept.npy", np.float32, (T, h, w))
        some = keyframes[np.unique(np.linspace(0, len(keyframes) - 1, LEARNED).round().astype(np.int64))]
        cutout = Cutout.learned(np.stack([small(int(t)) for t in some]), difference[some])

        def work(t: int) -> int:
            mask = cutout.mask(small(t), difference[t]).astype(np.float32)
            out[t] = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)
            return 1

        own = range(T)[backbone.team.own(T)]
        with monitor.stage("place", own.stop - own.start) as stage, one_opencv_thread():
            in_threads(work, own, stage.advance)
        return {}

    key = cache_key(
        video=video.digest, model=backbone.fingerprint, prompts=[source, left], keyframes=keyframes.tolist(),
        pixels=PIXELS, learned=LEARNED,
    )  # fmt: skip
    folder, _, _ = cache.get("kept", key, build, monitor.note, together=True)
    return np.load(folder / "kept.npy", mmap_mode="r")


def place_of(
    difference: np.ndarray,  # [T, h, w]
    keyframes: np.ndarray,  # [K]
    *,
    threshold: float,  # as a multiple of the keyframes' Otsu threshold; a lower one gives a larger place
    margin: int,  # tokens by which the place is grown
) -> np.ndarray | None:
    """Return [T, h, w] float32 0..1, 1 where the edit takes place, with a soft edge; None: all over the frame."""
    decisive = difference[keyframes]
    if float(decisive.std()) < LOCAL:  # the mean is 1
        return None
    inside = torch.from_numpy(np.asarray(difference > threshold * otsu(decisive), np.float32))[:, None]
    grown = F.max_pool2d(inside, 2 * margin + 1, stride=1, padding=margin)
    return blurred(grown, boxes=1)[:, 0].numpy()
