"""How many threads OpenCV has while the motion of a video is estimated."""

from __future__ import annotations

import cv2
import pytest

from adaflow_core.motion import flow
from adaflow_core.motion.flow import one_opencv_thread


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
