"""Edits the bundled colour clip with the embedded model, as the command line does: `make demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaflow_core.cli.main import main  # noqa: E402

if __name__ == "__main__":
    folder = ROOT / "assets" / "clips"
    clips = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    clip = next(clip for clip in clips if clip["kind"] == "colour")
    out = Path("outputs") / "demo.mp4"
    print(f"{clip['file']}: {clip['source_prompt']!r} becomes {clip['prompt']!r}", flush=True)
    arguments = ["edit", str(folder / clip["file"]), "--source-prompt", clip["source_prompt"]]
    sys.exit(main([*arguments, "--prompt", clip["prompt"], "--out", str(out)]))
