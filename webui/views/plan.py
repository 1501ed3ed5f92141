"""A plan: its keyframes, tokens and frames as pictures, and its cost."""

from __future__ import annotations

import numpy as np

from adaflow_core.errors import counted, percent
from adaflow_core.report.canvas import Picture
from adaflow_core.report.matches import match_view, shares_sentence, token_at
from adaflow_core.report.overlays import score_heatmap, score_view, token_view
from adaflow_core.types import Grid, Plan, Slimming
from webui.views.labels import SCORES
from webui.views.pictures import Item
from webui.views.text import cards, duration, memory, notes, notice


def keyframe_items(plan: Plan) -> list[Item]:
    """The keyframes in time order, captioned with time, frame and length of the segment."""
    segments = plan.segments
    return [
        (np.asarray(plan.video.frames[frame]), f"{plan.video.stamp(frame)} · segment of {length}")
        for frame, length in zip(segments.keyframes, segments.lengths, strict=True)
    ]


def grid_choices(plan: Plan) -> list[tuple[str, str]]:
    return [(f"{grid} (finest)" if grid == plan.finest else str(grid), str(grid)) for grid in plan.grids]


def token_items(plan: Plan, q: int, grid_name: str | None, show: str) -> tuple[list[Item], str]:
    """The tokens of the keyframes that keyframe `q` (from 0) keeps, or their scores, on one grid; and a sentence."""
    grid = next((g for g in plan.grids if str(g) == grid_name), plan.finest)
    q = min(max(q, 0), len(plan.layout.keyframes) - 1)
    items = score_view(plan, q, grid) if show == SCORES else token_view(plan, q, grid)
    return items, _token_sentence(plan, q, grid, show)


def _token_sentence(plan: Plan, q: int, grid: Grid, show: str) -> str:
    count = len(plan.layout.keyframes)
    if count == 1:
        return "There is only this one keyframe: it attends within itself, and every frame takes from it."
    slimming = plan.layout.slimming
    if slimming is None:
        return "With this method a keyframe attends within itself only: nothing of the others is kept."
    kept = slimming[grid].kept.shape[1]
    others = (kept - grid.n) / max(1, (count - 1) * grid.n)
    if show == SCORES:
        return (
            f"Keyframe {q + 1} on the {grid} grid: the score is how well its best match agrees with a token, "
            "weighted by importance. One scale for all pictures."
        )
    return (
        f"Keyframe {q + 1} on the {grid} grid attends to all {grid.n:,} tokens of its own and "
        f"to {percent(others)} of the others', {kept:,} in all. {_legend(slimming[grid])}"
    )


def _legend(slimming: Slimming) -> str:
    """What the colours of kept tokens mean, and how many there are of each."""
    chosen = slimming.kept.shape[1] - slimming.grid.n - slimming.num_sampled
    if not slimming.num_sampled:
        return "Hatched: dropped."
    return (
        f"Outlined: {chosen:,} chosen by score. Blue: {slimming.num_sampled:,} of an even sample, each of which "
        f"stands for {slimming.sample_weight:.1f} tokens. Hatched: dropped."
    )


def frame_view(plan: Plan, frame: int) -> tuple[Picture, str]:
    """A frame overlaid with its similarity to its keyframe, and a sentence on it."""
    frame = min(max(frame, 0), len(plan.video) - 1)
    heat = plan.heat[frame].astype(np.float32).reshape(plan.heat_grid)
    segment = int(plan.segments.segment_of()[frame])
    keyframe = int(plan.segments.keyframes[segment])
    sentence = f"{plan.video.stamp(frame)}: mean similarity {plan.similarity[frame]:.2f}, worst window "
    sentence += f"{plan.window[frame]:.2f}, residual {plan.residual[frame]:.2f}. "
    if frame == keyframe:
        sentence += "It is a keyframe."
    else:
        sentence += f"Its keyframe is at {plan.video.stamp(keyframe)}. {shares_sentence(plan, frame)}"
    return score_heatmap(np.asarray(plan.video.frames[frame]), heat, *plan.heat_range), sentence


def match_items(plan: Plan, frame: int, x: float, y: float) -> tuple[list[Item], str]:
    """A point (x, y) of a frame, in pixels, its matches in the keyframes, and a sentence on them."""
    frame, grid = min(max(frame, 0), len(plan.video) - 1), plan.finest
    if plan.layout.correspondence.by_layer:
        return [], "With this method each layer of the model finds its own matches while it edits."
    items = match_view(plan, frame, token_at(grid, plan.video.size, x, y))
    where = f"At ({x:.0f}, {y:.0f}) this frame takes what the edit changes at the marked places"
    return items, f"{where}, by these weights, on the {grid} grid."


def facts(plan: Plan, plan_id: str) -> dict[str, object]:
    """The plan in numbers, for programs, with its id."""
    return {
        "plan": plan_id,
        "frames": len(plan.video),
        "width": plan.video.size[0],
        "height": plan.video.size[1],
        "fps": float(plan.video.fps),
        "keyframes": plan.layout.keyframes.tolist(),
        "segments": plan.segments.starts.tolist(),
        "cuts": plan.segments.cuts.tolist(),
        "tokens_full": plan.tokens_full,
        "tokens_kept": plan.tokens_kept,
        "kept_ratio": plan.kept_ratio,
        "seconds": plan.forecast.total,
        "peak_memory_bytes": plan.forecast.peak_memory_bytes,
        "notes": list(plan.notes),
    }


def cost(plan: Plan) -> str:
    """The predicted cost of the edit: keyframes, tokens with and without pruning, time and memory."""
    keyframes, frames = len(plan.layout.keyframes), len(plan.video)
    facts = [
        ("Keyframes", f"{keyframes}", f"of {counted(frames, 'frame')}"),
        (
            "Tokens per keyframe",
            f"{plan.tokens_kept:,}",
            f"of {plan.tokens_full:,} unpruned ({percent(plan.kept_ratio)} kept)",
        ),
        ("Predicted time", duration(plan.forecast.total), "for the edit, on this machine"),
        ("Predicted memory", memory(plan.forecast.peak_memory_bytes), "at its peak"),
    ]
    warnings = [note for note in plan.notes if note in plan.video.notes]  # what is wrong with the file
    spoken = f"Preview ready: {counted(keyframes, 'keyframe')} of {counted(frames, 'frame')}"
    shown = f'<div data-spoken="{spoken}">{cards(facts)}</div>'
    return shown + notice(warnings) + notes([note for note in plan.notes if note not in warnings])


def stale(of_forecast: bool) -> str:
    """The notice for a plan whose settings have changed; `of_forecast`: only settings that affect its forecast."""
    if of_forecast:
        return notice(["The predicted time and memory are of the settings before; preview again for these."])
    return notice(["The settings have changed since this preview; preview again to see what they give."])
