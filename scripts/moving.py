"""Makes the moving picture of the README and of the page's head: `python scripts/moving.py [--edited FILE.mp4]`.

Edits the bundled clip by the command line, or takes an edit of it that is there already.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaflow_core.cli.main import main as command  # noqa: E402
from adaflow_core.video import decode_video  # noqa: E402
from adaflow_core.video.write import write_video  # noqa: E402

CLIP = "car.mp4"
OUT = ROOT / "docs" / "pictures" / "moving.webp"
HEAD = ROOT / "assets" / "clips" / "moving.mp4"
SIDE, GAP, TITLE = 384, 8, 34  # pixels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edited", type=Path, help="the edit, where it is made already")
    edited = parser.parse_args().edited
    folder = ROOT / "assets" / "clips"
    clips = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    clip = next(clip for clip in clips if clip["file"] == CLIP)
    source = folder / CLIP
    if edited is None:
        edited = ROOT / "outputs" / "moving.mp4"
        arguments = ["edit", str(source), "--source-prompt", clip["source_prompt"], "--prompt", clip["prompt"]]
        if status := command([*arguments, "--out", str(edited)]):
            return status
    video = decode_video(source, size=(SIDE, SIDE))
    frames = [
        side_by_side(before, after, clip["source_prompt"], clip["prompt"])
        for before, after in zip(video.frames, decode_video(edited, size=(SIDE, SIDE)).frames, strict=True)
    ]
    milliseconds = round(1000 / video.fps)
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, quality=80, method=6)
    write_video(HEAD, np.stack([np.asarray(frame)[TITLE:] for frame in frames]), video.fps)
    print(f"{OUT.relative_to(ROOT)}: {len(frames)} frames, {OUT.stat().st_size / 1e6:.2f} MB")
    return 0


def side_by_side(before: np.ndarray, after: np.ndarray, source_prompt: str, prompt: str) -> Image.Image:
    """Two frames [H, W, 3] uint8 under their prompts."""
    sheet = Image.new("RGB", (2 * SIDE + GAP, SIDE + TITLE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for x, frame, words in ((0, before, source_prompt), (SIDE + GAP, after, prompt)):
        sheet.paste(Image.fromarray(frame), (x, TITLE))
        pen.text((x + 4, 6), words, fill=(28, 33, 43), font=font)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
