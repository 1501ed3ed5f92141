"""The bundled example clips: `python -m scenes.clips --out assets/clips` draws and writes them again.

Each has a suggested edit whose true result the renderer knows (`truth`). Seeds are of the test split.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from scenes.captions import plain
from scenes.render import render
from scenes.world import SceneBatch, sample

FRAMES, FPS, SIZE = 48, 12, 256


@dataclass(frozen=True)
class Idea:
    """A clip and an edit of it."""

    file: str
    title: str
    kind: str  # of edit, as benchmarks count them: colour, object, background, style
    seed: int
    motion: str
    scene: dict[str, Any]  # what to set on the sampled row
    attribute: str  # the attribute that the edit changes
    value: str  # what it becomes


IDEAS: tuple[Idea, ...] = (
    Idea(
        "ball.mp4", "A red ball bounces through a meadow", "colour", 9000, "bounce",
        {"kind": "ball", "colour": "red", "background": "meadow"}, "colour", "blue",
    ),
    Idea(
        "car.mp4", "A red car drives from day into night", "background", 9005, "drift",
        {"kind": "car", "colour": "red", "background": "meadow"}, "background", "night",
    ),
    Idea(
        "rocket.mp4", "A rocket under the moon, painted", "style", 9005, "zoom",
        {"kind": "rocket", "colour": "red", "background": "night"}, "style", "impressionist",
    ),
    Idea(
        "balloon.mp4", "A balloon over the sea becomes a mushroom", "object", 9005, "drift",
        {"kind": "balloon", "colour": "orange", "background": "ocean"}, "kind", "mushroom",
    ),
    Idea(
        "duck.mp4", "A duck before and after a cut", "colour", 9004, "cut",
        {"kind": "duck", "colour": "yellow", "background": "ocean"}, "colour", "pink",
    ),
    Idea(
        "star.mp4", "The camera follows a star behind a tree, into winter", "background", 9002, "occlusion",
        {
            "kind": "star", "colour": "blue", "background": "autumn",
            "occluder": "trunk", "camera_path": [0.5, 0.0],
        },
        "background", "snow",
    ),
    Idea(
        "mushroom.mp4", "A mushroom walks into a comic", "style", 9001, "drift",
        {"kind": "mushroom", "colour": "purple", "background": "autumn"}, "style", "comic",
    ),
    Idea(
        "burst.mp4", "A star rests, then rolls off", "colour", 9007, "uneven",
        {"kind": "star", "colour": "pink", "background": "city"}, "colour", "green",
    ),
)  # fmt: skip


def scene(entry: dict[str, Any]) -> SceneBatch:
    """The one row of an entry of clips.json."""
    row = sample(1, seed=entry["seed"], split="test", motion=entry["motion"])
    plain_row = row.replace(style="photo", present2=False, occluder="none")
    values = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in entry["scene"].items()}
    return plain_row.replace(**values)


def describe(idea: Idea) -> dict[str, Any]:
    """Return an idea as an entry of clips.json, with its prompts; these name the style only if the edit changes it."""
    entry = asdict(idea)
    before = scene(entry)
    prompts = [plain(row)[0] for row in (before, before.replace(**{idea.attribute: idea.value}))]
    if idea.attribute != "style":
        prompts = [prompt.removesuffix(", photo") for prompt in prompts]
    return entry | {"source_prompt": prompts[0], "prompt": prompts[1], "fps": FPS, "frames": FRAMES}


def truth(
    entry: dict[str, Any],  # of clips.json
    size: int = SIZE,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the clip and its true edit (uint8 [T, H, W, 3] each), and the mask of the object (bool [T, H, W]).

    An edit of the object's kind moves its outline: the mask covers it as it was and as it becomes.
    """
    before = scene(entry)
    times = torch.linspace(0, 1, entry["frames"])
    drawn = [render(row, times, size) for row in (before, before.replace(**{entry["attribute"]: entry["value"]}))]
    frames = [rearrange((d.rgb[0] * 255).round().byte(), "t c h w -> t h w c").numpy() for d in drawn]
    mask = (drawn[0].ids[0] == 1) | (drawn[1].ids[0] == 1)
    return frames[0], frames[1], mask.numpy()


def main() -> None:
    from adaflow_core.video.write import write_video

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/clips"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    entries = [describe(idea) for idea in IDEAS]
    for entry in entries:
        write_video(out / entry["file"], truth(entry)[0], Fraction(entry["fps"]))
        print(f"{entry['file']}: {entry['source_prompt']} -> {entry['prompt']}")
    (out / "clips.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
