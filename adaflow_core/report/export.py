"""A plan as files: JSON for programs, arrays for researchers, pictures for people."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adaflow_core.config import (
    BY_WORDS,
    EditConfig,
    ModelProfile,
    PlanConfig,
    as_flags,
    resolve_edit,
    resolve_plan,
    settings_dict,
)
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.progress import Monitor
from adaflow_core.report import overlays, plots
from adaflow_core.report.canvas import Picture
from adaflow_core.types import Place, Plan
from adaflow_core.version import __version__

# And one for each keyframe, by the name below.
FILES = ("plan.json", "plan.npz", "keyframes.png", "timeline.png", "time_slice.png", "place.png")
_TOKENS = "tokens_{:05d}.png"
_SHEET_SIDE = 256  # pixels at most of the shorter side of each picture in these, which may show a hundred


def plan_report(plan: Plan) -> dict[str, Any]:
    """Everything a program wants to know about a plan, as plain JSON data.

    Frames count from 0 at the first that is edited, which is frame `first_frame` of the file. `frame_numbers` [T] are
    the file's, where some between them cannot be read, and `times` [T + 1] seconds after the file's first frame, of a
    rate that varies; both are null otherwise. `source_digest` is that of an edit's report.
    """
    segments = plan.segments
    return {
        "frames": len(plan.video),
        "first_frame": plan.video.start,
        "frame_numbers": plan.video.numbers and list(plan.video.numbers),
        "times": plan.video.times and list(plan.video.times),
        "source_digest": plan.video.digest,
        "width": plan.video.size[0],
        "height": plan.video.size[1],
        "fps": float(plan.video.fps),
        "segments": [
            {"start": int(start), "end": int(end), "keyframe": int(keyframe)}
            for start, end, keyframe in zip(segments.starts, segments.ends, segments.keyframes, strict=True)
        ],
        "keyframes": segments.keyframes.tolist(),
        "cuts": segments.cuts.tolist(),
        "kept_ratio": plan.kept_ratio,
        "tokens_full": plan.tokens_full,
        "tokens_kept": plan.tokens_kept,
        "kept_share": {str(grid): _share(plan, grid) for grid in plan.grids},
        "similarity": _rounded(plan.similarity),
        "window_similarity": _rounded(plan.window),
        "adjacent_similarity": _rounded(plan.adjacent),
        "residual": _rounded(plan.residual),
        "forecast": {
            "seconds": {**plan.forecast.seconds, "total": plan.forecast.total},
            "peak_memory_bytes": plan.forecast.peak_memory_bytes,
        },
        "seconds": plan.seconds,
        "settings": settings_dict(plan.config),
        "notes": list(plan.notes),
        "model": plan.model,
        "version": __version__,
    }


def save_plan(plan: Plan, folder: Path, place: Place | None = None, *, monitor: Monitor) -> Path:
    """Write plan.json, plan.npz (masks and scores by grid, curves, heat maps) and pictures into `folder`.

    `place`: of an edit, for a picture of where it changes the video. Pictures of an earlier plan there are deleted.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _pictures_of_the_last(folder):
            (folder / name).unlink(missing_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan_report(plan), indent=1), encoding="utf-8")
        arrays: dict[str, Any] = plan_arrays(plan)
        np.savez_compressed(folder / "plan.npz", **arrays)
        draw = _pictures(plan, place)
        with monitor.stage("write", len(draw)) as stage:
            for name, picture in draw.items():  # one at a time: those of a hundred keyframes are gigabytes
                # A sheet of a hundred pictures takes longer to pack well than to draw.
                Image.fromarray(picture()).save(folder / name, compress_level=1)
                stage.advance()
    except OSError as problem:
        raise AdaFlowError(f"{folder} cannot be written; choose another --out ({problem.strerror})") from problem
    return folder


def edit_command(
    video: str,
    prompt: str,
    plan: PlanConfig,
    edit: EditConfig,
    profile: ModelProfile,
    *,
    model: str,
    device: str,
    dtype: str = "auto",
    size: tuple[int, int] | None = None,
    frames: slice | None = None,
    over: Sequence[str] = (),
    deliver: str = "source",
) -> str:
    """The line for a shell that repeats an edit; what the model's own values give anyway is left out.

    plan: resolved. edit: as asked for, with None where it is left to the model or the words.
    dtype: as on the command line. size: (width, height), None for the model's own. frames: None for all.
    over: the flags of a region and of keyframes by hand.
    deliver: the size of what is written, as on the command line.
    """
    parts = ModelParts.parse(model)
    given = {
        "prompt": prompt,
        "model": parts.model if parts.model != "embedded" else None,
        "dtype": dtype if dtype != "auto" else None,
        "size": size and f"{size[0]}x{size[1]}",
        "frames": frames and f"{frames.start or 0}:{'' if frames.stop is None else frames.stop}",
        "deliver": deliver if deliver != "source" else None,
    }
    if plan.given_keyframes:  # which decide alone
        plan = replace(plan, keyframes=None)
    usual_plan, profile = vars(resolve_plan(PlanConfig(), profile, device)), profile.within(edit.max_steps, edit.steps)
    usual_edit = vars(resolve_edit(EditConfig(), profile, plan)) | {
        "inversion_steps": profile.inversion_steps_for(edit.steps),
        "agreements": profile.agreements_for(edit.steps, plan),
        **dict.fromkeys(BY_WORDS),
    }
    words = ["python", "-m", "adaflow_core", "edit", video]
    words += [f"--{name}={value}" for name, value in given.items() if value is not None]
    words += [*parts.flags, *over]
    return shlex.join([*words, *as_flags(plan, usual_plan), *as_flags(edit, usual_edit)])


def plan_arrays(plan: Plan) -> dict[str, np.ndarray]:
    """Masks [K, K, n] bool and scores [K, K, n] float16 by grid, curves [T], heat maps [T, n].

    `mask_` holds all tokens that are kept, `sampled_` [K, K, n] bool those of them that are kept as a sample of the
    rest. Each of the sample stands for `sample_weight_` tokens in attention, each other one for itself.
    """
    arrays = {
        "keyframes": plan.segments.keyframes,
        "starts": plan.segments.starts,
        "cuts": plan.segments.cuts,
        "similarity": plan.similarity,
        "window_similarity": plan.window,
        "adjacent_similarity": plan.adjacent,
        "residual": plan.residual,
        f"heat_{plan.heat_grid}": plan.heat,
    }
    for grid, slimming in (plan.layout.slimming or {}).items():
        arrays[f"mask_{grid}"] = slimming.mask
        arrays[f"scores_{grid}"] = slimming.scores
        sampled = [overlays.sampled_masks(plan, q, grid).reshape(-1, grid.n) for q in range(len(slimming.kept))]
        arrays[f"sampled_{grid}"] = np.stack(sampled)
        arrays[f"sample_weight_{grid}"] = np.array(slimming.sample_weight)
    return arrays


def _pictures(plan: Plan, place: Place | None) -> dict[str, Callable[[], Picture]]:
    """What draws each picture, by its name."""
    pictures: dict[str, Callable[[], Picture]] = {
        "keyframes.png": partial(overlays.keyframe_strip, plan),
        "timeline.png": partial(plots.plot_timeline, plan),
        "time_slice.png": partial(plots.time_slice, plan),
    }
    if plan.layout.slimming:
        ground = overlays.grounds(plan, most=_SHEET_SIDE)  # each is shown in all sheets but its own
        for q, keyframe in enumerate(plan.layout.keyframes.tolist()):
            pictures[_TOKENS.format(keyframe)] = partial(_token_sheet, plan, q, ground)
    if place is not None:
        pictures["place.png"] = partial(overlays.place_strip, plan, place)
    return pictures


def _token_sheet(plan: Plan, q: int, ground: Callable[[int], overlays.Ground]) -> Picture:
    when = plan.video.stamp(plan.layout.keyframes[q])
    views = overlays.token_view(plan, q, plan.finest, ground)
    return overlays.sheet(views, f"What the keyframe at {when} keeps of the others")


def _pictures_of_the_last(folder: Path) -> list[str]:
    """The names of those pictures of the plan that lies in `folder` that another plan may not have."""
    try:
        keyframes = json.loads((folder / "plan.json").read_bytes())["keyframes"]
        return ["place.png", *(_TOKENS.format(int(keyframe)) for keyframe in keyframes)]
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none, or a file of another program
        return []


def _share(plan: Plan, grid: Any) -> list[list[float]] | None:
    """[K][K] share of each keyframe's tokens that each keyframe keeps."""
    if plan.layout.slimming is None:
        return None
    masks = map(plan.layout.slimming[grid].mask_of, range(len(plan.layout.keyframes)))
    return [_rounded(mask.mean(axis=-1)) for mask in masks]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in values]
