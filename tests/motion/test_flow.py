"""The source's motion: how many threads OpenCV has while it is estimated, and what lies beyond a picture's edge."""

from __future__ import annotations

import cv2
import pytest
import torch
import torch.nn.functional as F

from adaflow_core.motion import flow
from adaflow_core.motion.flow import look_up, one_opencv_thread, within


def test_uses_that_overlap_leave_opencv_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "THREADS", 4)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        first, second = one_opencv_thread(), one_opencv_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(threads)


def test_what_lies_beyond_the_edge_is_its_last_pixel_without_the_device_knowing_of_it() -> None:
    """Metal fills with zeros only."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, 7, 10, generator=generator)
    where = 4 * torch.rand(2, 7, 10, 2, generator=generator) - 2
    found = F.grid_sample(pictures, within(where), mode="bilinear", padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(found, look_up(pictures, where))
