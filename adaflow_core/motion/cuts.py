"""Cut detection: find the frames that begin a new shot, from pixels alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from adaflow_core.motion.flow import one_opencv_thread
from adaflow_core.progress import Monitor, in_threads

# Chosen on validation films (benchmarks/RESULTS.md). They concern pixels only, so they hold for all models.
SIDE = 128  # pixels: shorter side at which frames are compared
WINDOW = 8  # pixels: side of the windows whose grey levels are correlated
CONTRAST = 6.0  # standard deviation, in grey levels of 255, under which a window counts as flat
UNLIKE = 0.4  # unlikeness at which a frame begins a shot: 0 is as unlike as the frames around it, 1 nothing in common
PART = 16  # frames that a thread compares at a time
# Their work is small and mostly Python: more threads gain little, and delay the launch of the model's kernels.
THREADS = 4
FLASH = 3  # longest flash or damaged stretch, in frames


def detect_cuts(frames: np.ndarray, monitor: Monitor) -> np.ndarray:
    """Return [C] int64, the frames of [T, H, W, 3] uint8 that begin a new shot.

    A cut is a single frame that is not the previous picture with some motion. Fast motion, dissolves and fades through
    black are no cuts: they spread the change over several frames. Neither are flashes of up to `FLASH` frames, after
    which the picture is as it was before.
    """
    T, unlike = len(frames), _Unlikeness(frames)
    values = np.zeros(T)

    def work(first: int) -> int:
        part = range(first, min(first + PART, T))
        compare = _Unlikeness(frames)  # each thread needs its own
        values[part.start : part.stop] = [compare(t - 1, t) for t in part]
        return len(part)

    with monitor.stage("cuts", T - 1) as stage, one_opencv_thread():
        in_threads(work, range(1, T, PART), stage.advance, THREADS)
    cuts = []
    for t in range(1, T):
        sides = [side for side in (values[max(1, t - 3) : t], values[t + 1 : t + 4]) if len(side)]
        usual = max((float(np.median(side)) for side in sides), default=0.0)
        limit = usual + UNLIKE * (1 - usual)
        around = ((a, a + gap) for gap in range(2, FLASH + 2) for a in range(max(0, t - gap), t) if a + gap < T)
        if values[t] >= limit and all(unlike(a, b) >= limit for a, b in around):
            cuts.append(t)
    return np.array(cuts, dtype=np.int64)


class _Unlikeness:
    """How unlike frame a is to frame b moved along the optical flow: 0 nothing new, 1 all new.

    Frames are [T, H, W, 3] uint8. The value is 1 minus the mean correlation of small windows, weighted by their
    contrast: it is not affected by a flash or fade, which scales the grey levels. The flow is dense inverse search
    (Kroeger et al. 2016), by OpenCV.
    """

    def __init__(self, frames: np.ndarray) -> None:
        import cv2

        self.frames = frames
        self.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        scale = SIDE / min(frames.shape[1:3])
        self.size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)
        self.places = np.stack(np.meshgrid(*map(np.arange, self.size)), axis=-1).astype(np.float32)  # [h, w, 2] x, y
        self.small = lru_cache(maxsize=2 * FLASH)(self._small)

    def _small(self, t: int) -> np.ndarray:
        import cv2

        grey = cv2.cvtColor(np.ascontiguousarray(self.frames[t]), cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, self.size, interpolation=cv2.INTER_AREA)

    def __call__(self, a: int, b: int) -> float:
        import cv2

        first, second = self.small(a), self.small(b)
        flow = self.search.calc(first, second, None)  # type: ignore[call-overload]
        places = self.places + flow
        moved = cv2.remap(second, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        x, y = first.astype(np.float32), moved.astype(np.float32)
        windows = self.size[0] // WINDOW, self.size[1] // WINDOW
        mean_x, mean_y, xx, yy, xy = (
            cv2.resize(values, windows, interpolation=cv2.INTER_AREA) for values in (x, y, x * x, y * y, x * y)
        )
        var_x, var_y = np.maximum(xx - mean_x**2, 0), np.maximum(yy - mean_y**2, 0)
        flat = CONTRAST**2
        correlation = (xy - mean_x * mean_y + flat) / np.sqrt((var_x + flat) * (var_y + flat))
        return 1 - float(np.average(correlation, weights=np.sqrt(np.maximum(var_x, var_y)) + 1e-3))
