"""Scores of pictures and videos. Standard ones come from scikit-image."""

from __future__ import annotations

import numpy as np

from adaflow_core.report.scores import psnr


def ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[T, H, W] structural similarity (Wang et al. 2004) around each pixel of uint8 videos [T, H, W, 3]."""
    from skimage.metrics import structural_similarity

    maps = (structural_similarity(a, b, channel_axis=-1, full=True)[1] for a, b in zip(first, second, strict=True))
    return np.stack([table.mean(axis=-1) for table in maps])


def by_region(frames: np.ndarray, truth: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of videos [T, H, W, 3] inside `region` [T, H, W] and outside it; nan where there is none."""
    table = ssim_map(frames, truth)

    def likeness(mask: np.ndarray) -> float:
        return float(table[mask].mean()) if mask.any() else float("nan")

    return {
        "psnr_inside": psnr(frames, truth, region),
        "psnr_outside": psnr(frames, truth, ~region),
        "ssim_inside": likeness(region),
        "ssim_outside": likeness(~region),
    }


def warp_error(frames: np.ndarray, flows: np.ndarray, visible: np.ndarray) -> float:
    """Mean absolute change along the flow, 0..255, on the pixels that stay in sight.

    `frames` [T, H, W, 3] uint8; `flows` [T - 1, 2, H, W] pixels (x, y) from frame t to t + 1; `visible`
    [T - 1, H, W] bool. Bilinear sampling.
    """
    from scipy.ndimage import map_coordinates

    rows, columns = np.mgrid[0 : frames.shape[1], 0 : frames.shape[2]].astype(np.float32)
    errors = []
    for t, (flow, mask) in enumerate(zip(flows, visible, strict=True)):
        where = [rows + flow[1], columns + flow[0]]
        following = np.stack(
            [map_coordinates(frames[t + 1, ..., c].astype(np.float32), where, order=1, mode="nearest")
             for c in range(3)], axis=-1,
        )  # fmt: skip
        if mask.any():
            errors.append(np.abs(following - frames[t])[mask].mean())
    return float(np.mean(errors)) if errors else float("nan")
