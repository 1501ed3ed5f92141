"""The table of LongV-EVAL: means with 95 % intervals by method, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.intervals import mean_interval

Row = dict[str, Any]
# Stages that all edits of a clip share, by any method: the first edit runs them.
SHARED = ("decode", "encode", "features")  # by all edits of a clip


@dataclass(frozen=True)
class Column:
    score: str  # its name in a row's scores
    head: str
    form: str


COLUMNS = (
    Column("frame_quality", "FQ", ".2f"),
    Column("video_quality", "VQ", ".3f"),
    Column("object_consistency", "OC", ".4f"),
    Column("semantic_consistency", "SC", ".4f"),
    Column("prompt_agreement", "prompt", ".3f"),
    Column("warp_error", "warp", ".2f"),
    Column("warp_error_of_source", "warp of source", ".2f"),
    Column("psnr", "PSNR", ".2f"),
    Column("psnr_of_source", "of source", ".2f"),
    Column("judge_target", "target", ".2f"),
    Column("judge_others", "others", ".2f"),
    Column("judge_consistency", "judge's OC", ".4f"),
    Column("agreement", "model's prompt", ".2f"),
)

# arXiv 2502.05433, on the published clips and one A800: FQ, VQ, OC, SC, minutes a video.
PAPER = {
    "Rerender-A-Video": (5.36, 0.638, 0.942, 0.961, 52),
    "TokenFlow": (5.30, 0.808, 0.947, 0.966, 40),
    "FLATTEN": (5.05, 0.637, 0.882, 0.931, 80),
    "RAVE": (5.17, 0.677, 0.861, 0.909, 83),
    "FRESCO": (5.65, 0.820, 0.930, 0.954, 47),
    "AdaFlow": (5.43, 0.839, 0.953, 0.969, 24),
}


def by_clip(rows: Iterable[Row], score: str) -> list[float]:
    """One value a clip, the mean over its prompts: prompts of one clip are no independent samples."""
    clips: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"].get(score)
        if value is not None:
            clips.setdefault(row["clip"], []).append(value)
    return [fmean(values) for values in clips.values()]


def shared_seconds(rows: Iterable[Row]) -> dict[str, float]:
    """Clip -> the seconds of its shared stages. A row that found them in the cache does not hold them."""
    clips: dict[str, dict[str, float]] = {}
    for row in rows:
        stages = clips.setdefault(row["clip"], {})
        for stage in SHARED:
            stages[stage] = max(stages.get(stage, 0.0), row["seconds"].get(stage, 0.0))
    return {clip: sum(stages.values()) for clip, stages in clips.items()}


def inverting_seconds(rows: Iterable[Row]) -> dict[tuple[str, int, int], float]:
    """Inversion -> its seconds for a frame, by the row that inverted most of its frames: others found theirs cached."""
    found: dict[tuple[str, int, int], float] = {}
    for row in rows:
        seconds = row["seconds"].get("invert", 0.0) / len(row["edited"])
        found[_inversion(row)] = max(found.get(_inversion(row), 0.0), seconds)
    return found


def _inversion(row: Row) -> tuple[str, int, int]:
    """What inversions are shared by: the clip, and the steps of the edit and of the inversion."""
    settings = row["settings"]["edit"]
    return row["clip"], settings["steps"], settings["inversion_steps"]


def own_seconds(row: Row) -> float:
    """What an edit takes where its clip's shared stages are done: planning, editing, decoding."""
    return float(sum(value for stage, value in row["seconds"].items() if stage not in (*SHARED, "invert", "total")))


def summarise(rows: list[Row]) -> dict[str, Any]:
    """Method -> intervals over clips of every score and of the seconds; `kinds`: the means by the prompt's name."""
    shared, inverting = shared_seconds(rows), inverting_seconds(rows)
    found: dict[str, Any] = {}
    for method in sorted({row["method"] for row in rows}):
        mine = [row for row in rows if row["method"] == method]
        clips: dict[str, list[float]] = {}
        for row in mine:
            clips.setdefault(row["clip"], []).append(own_seconds(row))
        own = {clip: fmean(values) for clip, values in clips.items()}
        inverted = {row["clip"]: inverting[_inversion(row)] * len(row["edited"]) for row in mine}
        found[method] = {
            "clips": len(own),
            "edits": len(mine),
            "scores": {column.score: mean_interval(by_clip(mine, column.score)) for column in COLUMNS},
            "seconds": mean_interval(own.values()),
            "seconds_alone": mean_interval(own[clip] + shared[clip] + inverted[clip] for clip in own),
            "kinds": {
                kind: {
                    column.score: mean_interval(
                        by_clip((row for row in mine if row["prompt_name"] == kind), column.score)
                    )["mean"]
                    for column in COLUMNS
                }
                for kind in sorted({row["prompt_name"] for row in mine})
            },
        }
    return found


def _spread(value: dict[str, Any], form: str) -> str:
    if value["mean"] is None:
        return "-"
    text = format(value["mean"], form)
    return text if value["low"] is None else f"{text} ± {format(value['mean'] - value['low'], form)}"


def markdown(summary: dict[str, Any], skipped: dict[str, str]) -> str:
    """The summary as tables: ours, ours by kind of prompt, the paper's."""
    columns = [c for c in COLUMNS if any(part["scores"][c.score]["mean"] is not None for part in summary.values())]
    lines = [
        "Means over clips with 95 % intervals; `s an edit` with what the clip's edits share done before, "
        "`alone` with it.",
        "",
        _line("method", "clips", "edits", *(column.head for column in columns), "s an edit", "alone"),
        _line(*["---"] * (len(columns) + 5)),
    ]
    for method, part in summary.items():
        scores = [_spread(part["scores"][column.score], column.form) for column in columns]
        seconds = [_spread(part[name], ".1f") for name in ("seconds", "seconds_alone")]
        lines.append(_line(method, str(part["clips"]), str(part["edits"]), *scores, *seconds))
    lines += ["", _line("by prompt", *(column.head for column in columns)), _line(*["---"] * (len(columns) + 1))]
    for method, part in summary.items():
        for kind, means in part["kinds"].items():
            cells = ["-" if means[c.score] is None else format(means[c.score], c.form) for c in columns]
            lines.append(_line(f"{method}, {kind}", *cells))
    lines += ["", "The paper's, on the published clips and one A800:", ""]
    lines += [_line("method", "FQ", "VQ", "OC", "SC", "minutes a video"), _line(*["---"] * 6)]
    lines += [_line(name, *map(str, values)) for name, values in PAPER.items()]
    if skipped:
        lines += ["", "Left out for want of weights:", ""]
        lines += [f"- {name}: {remedy}" for name, remedy in skipped.items()]
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
