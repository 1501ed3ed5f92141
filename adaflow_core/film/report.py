"""Merges the reports of a film's stretches into the film's report, and reads per-frame facts from it."""

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
    parts: list[dict[str, Any]],  # the reports of the stretches; a stretch of all frames gives the film's report
    laid: list[Laid],
    seconds: float,  # how long the edit took
    notes: Iterable[str],  # warnings on how the film was made, not on the edit itself
    team: Team,
) -> EditResult:
    """Return the film of its edited stretches, in a new array, with a report that still lacks `frames_digest`."""
    video = plan.video
    frames = lay_over(video.frames, laid, team)
    whole = {
        "settings": settings_dict(plan.config, config),
        "keyframes": _film_frames(parts, "keyframes"),
        "edited": _film_frames(parts, "edited"),
        "stretches": parts,
    }
    if timeline.one_prompt(video) is not None:
        whole = parts[0]  # its settings have no None left: they were filled in
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
    """Collect the frame numbers `name` of the stretches' reports, as frame numbers of the film."""
    return sorted({part["first_frame"] + frame for part in parts for frame in part[name]})


def _shared_value(parts: list[dict[str, Any]], name: str) -> Any:
    """Return the value `name` if the reports of all stretches have the same, else None."""
    first = parts[0][name]
    return first if all(part[name] == first for part in parts) else None


def _film_seconds(plan: Plan, parts: list[dict[str, Any]], edit: float) -> dict[str, float]:
    """Sum the seconds of each stage over planning and all stretches, cached ones too; `total` has this run's `edit`."""
    whole = len(parts) == 1 and parts[0]["frames"] == len(plan.video)  # its report has the planning in it
    found = added(*([] if whole else [plan.seconds]), *(part["seconds"] for part in parts))
    return found | {"total": sum(plan.seconds.values()) + edit}


def _film_warnings(report: dict[str, Any]) -> list[str]:
    """Collect the warnings of a new film's stretches; one that does not hold for all frames names its frames."""
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
    """Return (start, end, warnings) of a film's takes and stretches; the frames are those that were asked for."""
    found = [(*row["frames"], row.get("report", {}).get("warnings", [])) for row in report["takes"]]
    for part in report.get("stretches", []):
        first, end = part["first_frame"], part["first_frame"] + part["frames"]
        ranges = [row["frames"] for row in report["prompts"]]  # a stretch reaches over borders, by less than a range
        own = [frames for frames in ranges if first <= frames[0] and frames[1] <= end]
        found.append((own[0][0], own[-1][1], part["warnings"]))
    return found


def warning_on_frames(start: int, end: int, warning: str) -> str:
    """Return the film's wording of a warning on its frames `start` to `end`."""
    return f"frames {start}:{end}: {warning}"


def prompts_shown(report: dict[str, Any], T: int) -> list[PromptRange | None]:
    """Return [T] the range under whose prompt each frame was last edited; None: the frame is the source's."""
    frames: list[PromptRange | None] = [None] * T
    for row in (*report["prompts"], *report["takes"]):
        start, end = row["frames"]
        frames[start:end] = [PromptRange(start, end, row["prompt"], row.get("source_prompt"))] * (end - start)
    return frames
