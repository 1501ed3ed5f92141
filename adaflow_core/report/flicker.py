"""Flicker: change from frame to frame that is not due to motion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaflow_core.progress import Monitor

_SAMPLE = 24  # most pairs of frames that are looked at
TRUSTED = 4.0  # levels of 0..255: where the source differs by more from the moved frame before, flow is not trusted


def pairs_of(T: int, cuts: np.ndarray, edited: Sequence[int] | None = None) -> np.ndarray:
    """Return [P], the frames that are `edited` (default: all) as is the frame before, and do not begin a shot."""
    ids = np.arange(T) if edited is None else np.asarray(edited, np.int64)
    return np.setdiff1d(np.intersect1d(ids, ids + 1), cuts)


def flicker(
    frames: np.ndarray,
    source: np.ndarray,
    cuts: np.ndarray,
    edited: Sequence[int] | None = None,
    *,
    monitor: Monitor,
) -> float | None:
    """Return how much more an edit changes along the source's motion than the source does, in levels of 0..255.

    `frames` [T, H, W, 3] uint8 are the edit of `source`; those that are `edited` count (default: all). 0 is as calm as
    the source; None if the motion cannot be followed. The mean is over whole pictures and not only over what was
    changed: true edits to a thing of another shape have 9 to 37 levels there, as it does not move as the source does.
    """
    pairs = pairs_of(len(frames), cuts, edited)
    if not len(pairs):
        return None
    sample, more = pairs[np.unique(np.linspace(0, len(pairs) - 1, min(_SAMPLE, len(pairs))).round().astype(int))], []
    with monitor.stage("score", len(sample)) as stage:
        for t in sample:
            places = _came_from(source[t], source[t - 1])
            own, now = (_change(video[t], video[t - 1], places) for video in (source, frames))
            trusted = own < TRUSTED
            if trusted.mean() > 0.05:
                more.append(float((now - own)[trusted].mean()))
            stage.advance()
    return max(0.0, float(np.mean(more))) if more else None


def _came_from(frame: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y [H, W] float32 in `before` of each pixel of `frame`: dense inverse search (Kroeger et al. 2016)."""
    import cv2

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(np.ascontiguousarray(each), cv2.COLOR_RGB2GRAY) for each in (frame, before)]
    flow = search.calc(*grey, None)  # type: ignore[call-overload]
    rows, columns = np.indices(frame.shape[:2], dtype=np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]


def _change(frame: np.ndarray, before: np.ndarray, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    import cv2

    moved = cv2.remap(np.ascontiguousarray(before), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.abs(frame.astype(np.float32) - moved).mean(axis=-1))
