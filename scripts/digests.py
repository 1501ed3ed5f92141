"""Edits two bundled clips by fixed settings and prints what came of them: equal lines, equal frames.

Run it before and after a change that must not change any picture; on one machine the lines are equal to the bit.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CLIPS = {  # name -> what is in it, the edit, frames
    "ball": ("a red ball in a meadow", "a blue ball in a meadow", "0:8"),
    "duck": ("a yellow duck on the ocean", "a pink duck on the ocean", "20:28"),  # a cut lies within
}
SETTINGS = {
    "default": ["--steps", "4"],
    "paper": ["--preset", "paper", "--steps", "3", "--inversion-steps", "6"],
    "tokenflow": ["--preset", "tokenflow", "--steps", "3"],
    # In float32 another attention backend runs than in a CPU's bfloat16.
    "low-memory": [
        "--low-memory",
        "--steps",
        "3",
        "--dtype",
        "float32",
        "--keyframes",
        "3",
        "--prune",
        "0.4",
        "--guidance",
        "3",
    ],
}
TIMED = ("seconds", "forecast")  # of plan.json: not the same from run to run


def run(*arguments: str) -> None:
    from adaflow_core.cli import main

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        log = io.StringIO()
        with redirect_stderr(log):
            status = main(list(arguments))
        if status:
            raise SystemExit(f"{' '.join(arguments)} ended with {status}:\n{log.getvalue()}")


def digest_of(folder: Path) -> str:
    """Names a saved plan by its report without times, and by its pictures."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        if path.suffix == ".json":
            report = {name: value for name, value in json.loads(data).items() if name not in TIMED}
            data = json.dumps(report, sort_keys=True).encode()
        if path.suffix != ".npz":  # an archive holds the time at which it was written
            digest.update(path.name.encode() + data)
    return digest.hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="adaflow-digests-") as name:
        folder = Path(name)
        os.environ["ADAFLOW_CACHE"] = str(folder / "cache")
        for clip, (source, prompt, frames) in CLIPS.items():
            shared = [str(ROOT / f"assets/clips/{clip}.mp4"), "--source-prompt", source, "--frames", frames]
            run("plan", *shared, "--out", str(folder / clip))
            print(f"{clip:5} plan        {digest_of(folder / clip)}", flush=True)
            for setting, flags in SETTINGS.items():
                report = folder / "report.json"
                out = ["--out", str(folder / "edit.mp4"), "--report", str(report)]
                run("edit", *shared, *flags, "--prompt", prompt, *out)
                print(f"{clip:5} {setting:11} {json.loads(report.read_text())['frames_digest']}", flush=True)


if __name__ == "__main__":
    main()
