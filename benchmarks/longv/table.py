"""The table of LongV-EVAL: means with 95 % intervals by method, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.intervals import mean_interval

Row = dict[str, Any]
Key = tuple[Any, ...]
# Stages that all edits of a clip share, whatever the prompt: the first edit runs them, the others use the cache.
SHARED = ("decode", "encode", "features", "cuts", "flow", "choose", "decode source")
PLACE = "place"  # shared by a prompt's edits by several methods
OF_EDITED = ("choose", "decode source", PLACE)  # shared by edits in which the model edits the same frames
ALWAYS = ("encode", "features", "invert")  # every edit needs them
APART = ("measure", "total")  # "measure" calibrates the machine, "total" is a sum: neither is a stage of the edit
# Stages that an edit needs only with certain settings; every edit needs all others.
NEEDED_BY: dict[str, Callable[[dict[str, Any]], bool]] = {
    "flow": lambda edit: bool(edit["stride"] != 1 or edit["agreements"] or edit["smoothing"]),
    "choose": lambda edit: bool(edit["stride"] != 1),
    "decode source": lambda edit: bool(edit["detail"] or edit["agreements"] or edit["smoothing"]),
    PLACE: lambda edit: bool(edit["focus"]),
}


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
    """Return one value of a score per clip."""
    return _by_clip(rows, lambda row: row["scores"].get(score))


def _by_clip(rows: Iterable[Row], value_of: Callable[[Row], float | None]) -> list[float]:
    """Return one value per clip, the mean over its prompts, which are not independent samples."""
    clips: dict[str, list[float]] = {}
    for row in rows:
        value = value_of(row)
        if value is not None:
            clips.setdefault(row["clip"], []).append(value)
    return [fmean(values) for values in clips.values()]


class Stages:
    """The seconds of shared stages, from the rows that ran them; a row that used the cache does not have them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._found: dict[tuple[str, Key], float] = {}
        for row in rows:
            spent = {stage: row["seconds"][stage] for stage in (*SHARED, PLACE) if stage in row["seconds"]}
            if "invert" in row["seconds"]:
                # Per edited frame. A row with cached frames gives less, so the largest is kept.
                spent["invert"] = row["seconds"]["invert"] / len(row["edited"])
            for stage, seconds in spent.items():
                name = stage, _sharing(stage, row)
                self._found[name] = max(self._found.get(name, 0.0), seconds)

    def of(self, stage: str, row: Row) -> float:
        """Return the seconds of a row's stage if it is not cached; 0 if the edit does not need it, or no row ran it."""
        if stage in NEEDED_BY and not NEEDED_BY[stage](row["settings"]["edit"]):
            return 0.0
        return self._found.get((stage, _sharing(stage, row)), 0.0)

    def own(self, row: Row) -> float:
        """Return an edit's seconds if the shared stages are cached: planning, its place, editing and decoding."""
        others = (*SHARED, *APART, PLACE, "invert")
        mine = sum(value for stage, value in row["seconds"].items() if stage not in others)
        return float(mine) + self.of(PLACE, row)

    def alone(self, row: Row) -> float | None:
        """Return an edit's seconds with nothing cached; None if no row has the seconds of a stage in `ALWAYS`."""
        if not all(self.of(stage, row) for stage in ALWAYS):
            return None
        shared = sum(self.of(stage, row) for stage in SHARED)
        return self.own(row) + shared + self.of("invert", row) * len(row["edited"])


def _sharing(stage: str, row: Row) -> Key:
    """Return a key that is equal for edits that share a stage."""
    if stage == "invert":
        settings = row["settings"]["edit"]
        return row["clip"], settings["steps"], settings["inversion_steps"]
    if stage in OF_EDITED:
        return row["clip"], *row["edited"], *([row["prompt_name"]] if stage == PLACE else [])
    return (row["clip"],)


def summarise(rows: list[Row]) -> dict[str, Any]:
    """Return method -> intervals over clips of every score and of the seconds; `kinds`: means by prompt name."""
    stages, found = Stages(rows), dict[str, Any]()
    for method in sorted({row["method"] for row in rows}):
        mine = [row for row in rows if row["method"] == method]
        # A resumed edit has only the seconds after it resumed.
        whole = [row for row in mine if not row["resumed_at_step"]]
        found[method] = {
            "clips": len({row["clip"] for row in mine}),
            "edits": len(mine),
            "scores": {column.score: mean_interval(by_clip(mine, column.score)) for column in COLUMNS},
            "seconds": mean_interval(_by_clip(whole, stages.own)),
            "seconds_alone": mean_interval(_by_clip(whole, stages.alone)),
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
    """Return the summary as tables: ours, ours by prompt name, and the paper's."""
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
