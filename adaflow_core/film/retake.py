"""Edits a stretch of a finished edit again, with the keyframes on either side held.

The held keyframes take part in the joint pass over keyframes, so that the new frames fit in, but stay as they are.
Their latents at every step follow from their edited pictures: the source's inverted latents, moved by the edit's change
of the clean latents.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from adaflow_core.config import EditConfig, settings_dict
from adaflow_core.editing.checkpoint import frames_digest
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.report import prompts_shown, warning_on_frames, warnings_by_part
from adaflow_core.film.stretch import Laid, clip, ramp
from adaflow_core.film.timeline import PromptRange
from adaflow_core.model.backbone import Backbone
from adaflow_core.planning.analysis import check_edit_of
from adaflow_core.types import EditResult, Held, Inversion, Plan, Segments

NEIGHBOURS = 1  # keyframes held on either side; with two, takes looked less like the film around them


@dataclass(frozen=True)
class Around:
    """The finished frames that a stretch is fitted into."""

    only: slice  # the frames of the plan at hand that are edited
    frame_ids: np.ndarray  # [H] the plan's keyframes that are held; empty if the shot has no others
    pictures: np.ndarray  # [H, H, W, 3] uint8, the held keyframes as edited
    prompts: tuple[str, ...]  # [H] the prompts under which they were edited
    edited: np.ndarray | None = None  # [E] frames that the model edits beside keyframes; None: they are chosen anew

    @property
    def passing(self) -> np.ndarray:
        """[F] the frames that pass through the UNet: the edited and the held ones."""
        return np.union1d(np.arange(self.only.start, self.only.stop), self.frame_ids)

    def at(self, frame_ids: np.ndarray) -> Around:
        """Renumber for a plan that holds only the frames `frame_ids` [F], the held ones among them."""
        start, stop = np.searchsorted(frame_ids, [self.only.start, self.only.stop]).tolist()
        edited = None if self.edited is None else np.searchsorted(frame_ids, self.edited)
        held = np.searchsorted(frame_ids, self.frame_ids)
        return replace(self, only=slice(start, stop), frame_ids=held, edited=edited)

    @property
    def digest(self) -> str:
        edited = None if self.edited is None else self.edited.tolist()
        return f"{frames_digest(self.pictures)} {self.frame_ids.tolist()} {self.prompts} {self.only} {edited}"


def surroundings(
    segments: Segments, start: int, end: int, edited: np.ndarray | None = None
) -> tuple[int, int, Segments, np.ndarray]:
    """Extend frames `start` to `end` to the keyframes of their shots that are held on either side.

    Returns the first frame and the end of the extended range, its segments, and the held keyframes [H], counted from
    its first frame. Segments that lose their keyframe get a new one, out of the frames `edited` [E] if these are given
    (see `clip`).
    """
    shots = np.array([0, *segments.cuts, segments.T])
    first, last = shots[shots <= start].max(), shots[shots >= end].min()
    keyframes = segments.keyframes
    before = keyframes[(keyframes >= first) & (keyframes < start)][-NEIGHBOURS:]
    after = keyframes[(keyframes >= end) & (keyframes < last)][:NEIGHBOURS]
    begin, stop = int(min([*before, start])), int(max([*after + 1, end]))
    inner = clip(segments, start, end, edited)
    later = after.copy()
    later[:1] = end  # the first segment after the stretch begins where the stretch ends
    around = Segments(
        np.concatenate([before, inner.starts + start, later]) - begin,
        np.concatenate([before, inner.keyframes + start, after]) - begin,
        inner.cuts + start - begin,
        stop - begin,
    )
    return begin, stop, around, np.concatenate([before, after]) - begin


@torch.inference_mode()
def hold(
    backbone: Backbone,
    inversion: Inversion,
    latents: np.ndarray,  # [T, 4, h, w] the source's
    around: Around,
) -> Held:
    """Return the held keyframes' latents at every step: the source's, moved by the edit's change of the clean ones."""
    change = backbone.encode(around.pictures).cpu().numpy() - latents[around.frame_ids]
    shares = [backbone.schedule.alpha(t) ** 0.5 for t in inversion.timesteps.tolist()]
    noisy = inversion.latents[:, around.frame_ids]  # [S, H, 4, h, w]
    path = np.stack([x + share * change for share, x in zip(shares, noisy, strict=True)])
    prompt_embeds = torch.cat([backbone.embed(prompt).prompt_embeds for prompt in around.prompts])
    return Held(around.frame_ids, path.astype(np.float32), prompt_embeds)


def stretch_frames(plan: Plan, frames: tuple[int, int]) -> tuple[int, int]:
    """Return the first frame and the end of `frames`; raises AdaFlowError if they are not within the video."""
    T = len(plan.video)
    try:
        start, end = map(operator.index, frames)
    except (TypeError, ValueError) as problem:
        raise AdaFlowError(
            f"the stretch is {frames!r:.80}; give its first frame and its end in whole numbers, as in (30, 60)"
        ) from problem
    if not 0 <= start < end <= T:
        raise AdaFlowError(f"the stretch {start}:{end} is not within the video, which has {T} frames from 0 on")
    return start, end


def take_of(
    plan: Plan, result: EditResult, start: int, end: int, prompt: str | None, source_prompt: str | None
) -> PromptRange:
    """Return the range and prompts of a retake of frames `start` to `end`; None takes the prompt they have now.

    Raises AdaFlowError if `result` is not an edit of the plan's video, or the plan resamples its keyframes, or no
    `prompt` is given and the frames have several.
    """
    check_edit_of(plan.video, result)
    if plan.config.resample:
        raise AdaFlowError("keyframes that are drawn anew at every step cannot be held; plan without resample")
    ranges = prompts_shown(result.report, len(plan.video))[start:end]
    asked = {r.prompt for r in ranges if r}
    if prompt is None:
        if len(asked) != 1 or None in ranges:
            raise AdaFlowError(f"frames {start}:{end} do not show one prompt; give one that says what they should show")
        prompt = asked.pop()
    sources = {r.source_prompt if r else None for r in ranges}
    if source_prompt is None and len(sources) == 1:
        source_prompt = sources.pop()
    return PromptRange(start, end, prompt, source_prompt)


def around_of(
    result: EditResult,
    piece: Plan,
    only: slice,  # the frames of `piece` that are made again
    begin: int,  # the first frame of `piece` in the result
    held: np.ndarray,  # [H] the keyframes of `piece` that are held
    edited: np.ndarray | None,  # [E] frames of the result, as `edited_frame_ids` gives them
) -> Around:
    """Return the surroundings that a retake of `only` is fitted into."""
    ranges = prompts_shown(result.report, len(result.frames))[begin:]
    prompts = tuple(r.prompt if (r := ranges[t]) else piece.config.source_prompt for t in held.tolist())
    known = None if edited is None else edited - begin
    return Around(only, held, np.asarray(result.frames[begin + held]), prompts, known)


def edited_frame_ids(report: dict[str, Any], start: int, end: int, stride: int) -> np.ndarray | None:
    """Return [E] the frames, as numbers of the film, that a retake of `start` to `end` edits; None: it chooses its own.

    They are those that the model edited for the film: their inversion is in the cache already. The result is None if
    they lie further apart than the retake's `stride` allows, as where the film shows the source, or if the film's
    stride is less than half of `stride`. A report counts frames from the first of each stretch, or from the film's
    first if it has no stretches; `Around` counts from its own first frame.
    """
    parts = report.get("stretches", [report])
    film = [part.get("first_frame", 0) + np.array(part.get("edited", []), np.int64) for part in parts]
    edited = np.unique(np.concatenate(film))
    edited = edited[(edited >= start) & (edited < end)]
    like_these = all(stride // 2 <= part.get("stride", 0) <= stride for part in parts)
    gaps = np.diff(edited, prepend=start - 1, append=end)
    return edited if like_these and gaps.max(initial=0) <= stride else None


def laid_take(plan: Plan, film: np.ndarray, take: PromptRange, new: np.ndarray) -> Laid:
    """Return a take's `new` frames [end - start, H, W, 3] uint8 with weights that fade them into the `film`."""
    start, end, old = take.start, take.end, film[take.start : take.end]
    rise, fall = (
        0 if border in (0, len(plan.video), *plan.segments.cuts) else seam_frames(old[::way], new[::way])
        for border, way in ((start, 1), (end, -1))
    )
    return Laid(start, new, ramp(len(new), rise, fall))


def with_take(
    plan: Plan,
    result: EditResult,
    take: PromptRange,
    config: EditConfig,
    report: dict[str, Any],  # of the stretch in which the take was made
    begin: int,  # the stretch's first frame in the film
    notes: Iterable[str],  # warnings on how the take was made, not on the edit itself
) -> EditResult:
    """Return the result with a new take in its report, whose `takes` are in order, each laid over those before it."""
    row = take.as_json() | {"settings": settings_dict(plan.config, config)["edit"], "seed": config.seed}
    facts = {
        "keyframes": [begin + frame for frame in report["keyframes"]],
        "edited": [take.start + frame for frame in report["edited"]],
        "seconds": report["seconds"],
        "settings": report["settings"]["edit"],  # with the values that were filled in
        "warnings": report["warnings"],
    }
    left, of_take = _still_true(plan, result, take), report["warnings"]
    if (take.start, take.end) != (0, len(plan.video)):
        said = {*left, *notes}  # warnings that hold for all frames
        of_take = [warning_on_frames(take.start, take.end, warning) for warning in of_take if warning not in said]
    warnings = tuple(dict.fromkeys([*left, *notes, *of_take]))
    changed = {"takes": [*result.report["takes"], row | {"report": facts}], "warnings": list(warnings)}
    # Without `state`, the film's checkpoint is not removed with this result: the film may not be written yet.
    return replace(result, report=result.report | changed, warnings=warnings, state=None)


def _still_true(plan: Plan, result: EditResult, take: PromptRange) -> list[str]:
    """Return the film's warnings, without those on parts that the take covers completely."""
    if (take.start, take.end) == (0, len(plan.video)):
        return []
    gone = set[str]()
    for start, end, warnings in warnings_by_part(result.report):
        if take.start <= start and end <= take.end:
            gone |= {warning_on_frames(start, end, warning) for warning in warnings}
    return [warning for warning in result.warnings if warning not in gone]


def seam_frames(old: np.ndarray, new: np.ndarray) -> int:
    """Return the number of frames, from the first, over which `old` [F, H, W, 3] fades into `new` without a jump.

    It is the smallest number with which the fade adds at most a fifth to the frames' usual change; at most a third of
    F, since the other end may fade too.
    """
    most = len(old) // 3
    jumps, motion, before = np.zeros(most), np.zeros(most), old[0].astype(np.float32)
    for t in range(most):
        now = old[t + 1].astype(np.float32)
        jumps[t], motion[t] = np.abs(before - new[t]).mean(), np.abs(now - before).mean()
        before = now
    lengths = np.arange(1, most + 1)
    calm = lengths[np.cumsum(jumps) / lengths <= (lengths + 1) * motion.mean() / 5] if most else lengths
    return int(calm[0]) if len(calm) else most
