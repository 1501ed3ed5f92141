"""What batches in tests are made of: clips of two frames, two methods, and a scorer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adaflow_core.batch.manifest import Clip
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.model.loading import EMBEDDED

CLIPS = EMBEDDED.parent / "clips"
needs_model = pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not in assets/")
METHODS = {
    "adaflow": (PlanConfig(keyframes=1), EditConfig(steps=1)),
    "per-frame": (PlanConfig(method="per-frame"), EditConfig(steps=1)),
}


def clip(name: str, **changes: Any) -> Clip:
    prompts = {"foreground": "a blue ball", "style": "a red ball, comic style"}
    return replace(
        Clip(name, str(CLIPS / "ball.mp4"), prompts, "a red ball", frames="0:2", size="64x64"),
        **changes,
    )


@dataclass(frozen=True)
class Length:
    """A scorer that says how many bytes an edit has."""

    version: int = 1

    def identity(self) -> dict[str, Any]:
        return {"version": self.version}

    def score(self, clip: Clip, prompt: str, source: Path, edited: Path) -> dict[str, Any]:
        assert source.is_file() and clip.prompts[prompt]
        return {"bytes": edited.stat().st_size}
