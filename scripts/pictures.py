"""Makes the README's pictures from real plans and edits of the bundled clips: `python scripts/pictures.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaflow_core import PlanConfig  # noqa: E402
from adaflow_core.engine import AdaFlow  # noqa: E402
from adaflow_core.report import overlays, plots  # noqa: E402
from adaflow_core.types import Plan  # noqa: E402

OUT = ROOT / "docs" / "pictures"
WIDTH = 1000
FRAMES = slice(0, 24)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    clips = json.loads((ROOT / "assets" / "clips" / "clips.json").read_text(encoding="utf-8"))
    engine = AdaFlow.from_pretrained("embedded")
    rows: list[tuple[str, np.ndarray]] = []
    firsts = {clip["kind"]: clip for clip in reversed(clips)}  # the first clip of each kind of edit
    for clip in (firsts[kind] for kind in ("colour", "background", "style")):
        config = PlanConfig(source_prompt=clip["source_prompt"])
        plan = engine.plan(ROOT / "assets" / "clips" / clip["file"], config, frames=FRAMES)
        edited = engine.edit(plan, clip["prompt"]).forget_state().frames
        sample = np.linspace(0, len(edited) - 1, 6).round().astype(int)
        rows.append((clip["source_prompt"], overlays.tile(list(plan.video.frames[sample]))))
        rows.append((f"becomes: {clip['prompt']}", overlays.tile(list(edited[sample]))))
        if clip is firsts["colour"]:
            draw_method(plan, edited, clip["prompt"]).save(OUT / "method.webp", quality=90, method=6)
    stack(rows).save(OUT / "edits.webp", quality=90, method=6)


def draw_method(plan: Plan, edited: np.ndarray, prompt: str) -> Image.Image:
    """The method in one picture: timeline, keyframes, kept tokens, the edit."""
    sample = np.linspace(0, len(edited) - 1, 8).round().astype(int)
    middle = len(plan.layout.keyframes) // 2
    tokens = [picture for picture, _ in overlays.token_view(plan, middle, plan.finest)][:4]
    return stack(
        [
            ("1. Compare every frame with its keyframe; cut the timeline where it has changed",
             plots.plot_timeline(plan, WIDTH)),
            ("2. Keyframes: dense where content changes", overlays.keyframe_strip(plan)),
            (f"3. Tokens that the keyframe at frame {plan.layout.keyframes[middle]} keeps of others",
             overlays.tile(tokens)),
            (f"4. Edited jointly, carried to all frames: “{prompt}”",
             overlays.tile(list(edited[sample]))),
        ]
    )  # fmt: skip


def stack(rows: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Pictures below each other, scaled to the width of the sheet, each under its title."""
    font = ImageFont.load_default(20)
    pictures = [Image.fromarray(picture) for _, picture in rows]
    resized = [p.resize((WIDTH, round(p.height * WIDTH / p.width)), Image.Resampling.LANCZOS) for p in pictures]
    sheet = Image.new("RGB", (WIDTH, sum(p.height + 42 for p in resized)), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for (title, _), picture in zip(rows, resized, strict=True):
        pen.text((4, y + 10), title, fill=(28, 33, 43), font=font)
        sheet.paste(picture, (0, y + 38))
        y += picture.height + 42
    return sheet


if __name__ == "__main__":
    main()
