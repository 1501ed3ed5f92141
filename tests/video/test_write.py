"""Writing videos: what every run must do alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WRITE = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from adaflow_core.video.write import write_video
frames = np.full((12, 64, 64, 3), 90, np.uint8)
for t, frame in enumerate(frames):
    frame[10 + t : 34 + t, 2 * t : 2 * t + 30] = 220, 40, 3 * t
frames += np.random.default_rng(0).integers(0, 30, frames.shape, np.uint8)
write_video(Path(sys.argv[1]), frames, Fraction(24))
"""


def test_the_same_frames_become_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the memory holds that the encoder gets: glibc fills it as it is told."""
    for fill in ("0", "165"):
        environment = os.environ | {"MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", WRITE, tmp_path / f"{fill}.mp4"], env=environment, check=True)
    assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "165.mp4").read_bytes()
