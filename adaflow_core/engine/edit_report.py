"""What becomes of an edit's frames: an `EditResult` with its report and warnings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from adaflow_core.config import JobEdit, settings_dict
from adaflow_core.editing.checkpoint import frames_digest
from adaflow_core.film.timeline import PromptRange
from adaflow_core.model.backbone import prompt_warnings
from adaflow_core.picture.changes import hardly_changed
from adaflow_core.picture.over import OverThePicture
from adaflow_core.progress import added
from adaflow_core.team.team import Team
from adaflow_core.types import EditResult, Embedding, Plan
from adaflow_core.version import __version__


@dataclass(frozen=True)
class EditRun:
    """How an edit was made: with which settings and frames, and what it took."""

    settings: JobEdit  # with what its place decided, and the frames of a pass as memory allowed
    edited: np.ndarray  # [F] frames that the model edited, counted from the first of the part; the others are carried
    seconds: float
    stage_seconds: dict[str, float]  # stage -> seconds
    peak_memory_bytes: int
    inversion_reused: bool
    resumed_at_step: int  # 0: from the beginning


def edit_result(
    frames: np.ndarray,  # [F, H, W, 3] uint8, of the part
    run: EditRun,
    plan: Plan,
    over: OverThePicture,
    part: slice,  # the frames of the plan that were edited
    team: Team,
    *,
    source: Embedding,
    negative: Embedding,
    positive: Embedding,
    alike: bool,
) -> EditResult:
    """The edited video with its report.

    `alike`: the prompts say the same, so no warning is due if nothing changed. The warnings are on the edit alone,
    whenever it was made; what concerns this run only are the monitor's notes.
    """
    crop, region = over.crop, over.region
    video = plan.video if crop is None else crop.source
    found = [region.doubt] if region is not None and region.doubt else []
    found += _on_prompts(source, negative, positive)
    if not alike:
        found += _left_as_it_was(frames, video.frames[part], None if region is None else region.weights[part])
    warnings = tuple(dict.fromkeys(found))
    report = {
        "frames": len(video),
        "source_digest": video.digest,
        "width": video.size[0],
        "height": video.size[1],
        "fps": float(video.fps),
        "segments": len(plan.segments),
        "keyframes": plan.segments.keyframes.tolist(),
        "edited": run.edited.tolist(),
        "stride": run.settings.stride,
        "kept_ratio": plan.kept_ratio,
        "tokens_full": plan.tokens_full,
        "tokens_kept": plan.tokens_kept,
        # Of planning and of the edit, whenever each took place.
        "seconds": added(plan.seconds, run.stage_seconds) | {"total": sum(plan.seconds.values()) + run.seconds},
        "peak_memory_bytes": run.peak_memory_bytes,
        "inversion_reused": run.inversion_reused,
        "resumed_at_step": run.resumed_at_step,
        "frames_digest": frames_digest(frames, team),
        "prompt": positive.text,
        **over.asked,
        "crop": None if crop is None else crop.window.as_json(),
        "prompts": [PromptRange(0, len(video), positive.text, source.text).as_json()],
        "takes": [],
        "settings": settings_dict(plan.config, run.settings),
        "seed": run.settings.seed,
        "model": plan.model,
        "version": __version__,
        "warnings": list(warnings),
    }
    return EditResult.of(video, frames, report, warnings)


def _on_prompts(source: Embedding, negative: Embedding, positive: Embedding) -> list[str]:
    """Sentences on what the model does not take of the prompts."""
    prompts = [(positive, "prompt"), (source, "source prompt")]
    if negative.text != source.text:  # which it is by default for some models
        prompts.append((negative, "negative prompt"))
    found = [warning for prompt, name in prompts for warning in prompt_warnings(prompt, name)]
    if positive.text != source.text and positive.dropped and torch.equal(positive.prompt_embeds, source.prompt_embeds):
        found.append("the two prompts differ only in what the model does not see; shorten them")
    return found


def _left_as_it_was(frames: np.ndarray, source: np.ndarray, inside: np.ndarray | None) -> list[str]:
    """A sentence where the edit made next to no difference to the source's frames [F, H, W, 3] uint8.

    `inside`: a region's weights [F, H, W] uint8, where one was edited.
    """
    if not hardly_changed(frames, source, inside):
        return []
    remedy = "word the two prompts alike but for what is to change"
    if inside is not None:
        remedy = "see whether the region holds what is to change, or " + remedy
    return [f"the edit changed next to nothing; {remedy}"]
