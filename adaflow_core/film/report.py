"""The report of a film, put together from those of its stretches; and what it says of a film's frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adaflow_core.config import EditConfig, settings_dict
from adaflow_core.film.stretch import Laid, lay_over
from adaflow_core.film.timeline import PromptRange, Timeline, crossfade_notes
from adaflow_core.progress import added
from adaflow_core.team.team import Team
from adaflow_core.types import EditResult, Plan
from adaflow_core.version import __version__


def film_result(
    plan: Plan,
    timeline: Timeline,  # in frames of the plan
    config: EditConfig,
    parts: list[dict[str, Any]],  # the reports of the stretches; that of all frames is the film's
    laid: list[Laid],
    seconds: float,  # that the edit took
    notes: Iterable[str],  # on how it was made, not on the edit
    team: Team,
) -> EditResult:
    """The film of its edited stretches, in an array of its own, with its report but for `frames_digest`."""
    video = plan.video
    frames = lay_over(video.frames, laid, team)
    whole = {
        "settings": settings_dict(plan.config, config),
        "keyframes": _film_frames(parts, "keyframes"),
        "edited": _film_frames(parts, "edited"),
        "stretches": parts,
    }
    if timeline.one_prompt(video) is not None:
        whole = parts[0]  # with what was filled in
    report = whole | {
        "frames": len(video),
        "width": video.size[0],
        "height": video.size[1],
        "fps": float(video.fps),
        "seconds": _film_seconds(plan, parts, seconds),
        "source_digest": video.digest,
        "prompt": timeline.text,
        "region": _shared_value(parts, "region"),
        "crop": _shared_value(parts, "crop"),
        "by_hand": _shared_value(parts, "by_hand"),
        "prompts": timeline.as_json(),
        "crossfade": timeline.crossfade,
        "takes": [],
        "seed": config.seed,
        "model": plan.model,
        "version": __version__,
    }
    of_parts = _film_warnings(report) if "stretches" in report else report["warnings"]
    told = [*crossfade_notes(timeline, plan.segments.cuts, len(video)), *notes, *of_parts]
    warnings = tuple(dict.fromkeys(told))
    report["warnings"] = list(warnings)
    return EditResult.of(video, frames, report, warnings)


def _film_frames(parts: list[dict[str, Any]], name: str) -> list[int]:
    """The frames that the reports of stretches name, each counted from its first, in those of the film."""
    return sorted({part["first_frame"] + frame for part in parts for frame in part[name]})


def _shared_value(parts: list[dict[str, Any]], name: str) -> Any:
    """What the reports of stretches say alike; None where they differ."""
    first = parts[0][name]
    return first if all(part[name] == first for part in parts) else None


def _film_seconds(plan: Plan, parts: list[dict[str, Any]], edit: float) -> dict[str, float]:
    """By stage, of planning and of all stretches, whenever each took place; `total` with what the edit took now."""
    whole = len(parts) == 1 and parts[0]["frames"] == len(plan.video)  # its report has the planning in it
    found = added(*([] if whole else [plan.seconds]), *(part["seconds"] for part in parts))
    return found | {"total": sum(plan.seconds.values()) + edit}


def _film_warnings(report: dict[str, Any]) -> list[str]:
    """Those of a new film's stretches; what not all say, or not of all frames, is told of their frames."""
    parts = warnings_by_part(report)
    whole = sum(end - start for start, end, _ in parts) == report["frames"]
    of_all = {warning for *_, warnings in parts for warning in warnings if all(warning in w for *_, w in parts)}
    of_all = of_all if whole else set()
    return [
        warning if warning in of_all else warning_on_frames(start, end, warning)
        for start, end, warnings in parts
        for warning in warnings
    ]


def warnings_by_part(report: dict[str, Any]) -> list[tuple[int, int, list[str]]]:
    """Of a film's stretches and takes: from where to where it was asked for, and what is warned of it."""
    found = [(*row["frames"], row.get("report", {}).get("warnings", [])) for row in report["takes"]]
    for part in report.get("stretches", []):
        first, end = part["first_frame"], part["first_frame"] + part["frames"]
        ranges = [row["frames"] for row in report["prompts"]]  # a stretch reaches over borders, by less than a range
        own = [frames for frames in ranges if first <= frames[0] and frames[1] <= end]
        found.append((own[0][0], own[-1][1], part["warnings"]))
    return found


def warning_on_frames(start: int, end: int, warning: str) -> str:
    """A warning on a part of a film, as it is said of the film."""
    return f"frames {start}:{end}: {warning}"


def prompts_shown(report: dict[str, Any], T: int) -> list[PromptRange | None]:
    """[T] what each frame of a result was last edited to show; None: the source."""
    frames: list[PromptRange | None] = [None] * T
    for row in (*report["prompts"], *report["takes"]):
        start, end = row["frames"]
        frames[start:end] = [PromptRange(start, end, row["prompt"], row.get("source_prompt"))] * (end - start)
    return frames
