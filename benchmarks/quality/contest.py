"""Methods and switched-off parts against the truth, clip by clip."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np

from adaflow_core.config import resolve_edit
from adaflow_core.types import Plan
from benchmarks.output import say
from benchmarks.quality import scoring
from benchmarks.quality.bench import Bench, Planned
from benchmarks.quality.cases import Clip, true_cut
from benchmarks.quality.contestants import BOUND, COPY, DEFAULT, JOINT, Contestant, count_crossings
from benchmarks.scores import autoencode, judge_clip
from benchmarks.truth import Pair
from scenes.clips import FPS

FILMED = (DEFAULT, "uniform", "tokenflow", "paper-adapted", JOINT)


def save_pair(bench: Bench, pair: Pair) -> scoring.Folder:
    folder = scoring.Folder(bench.folder / pair.name)
    flows, visible = pair.flows(bench.backbone.device)
    arrays = {
        "source": pair.source, "truth": pair.truth, "region": pair.region, "flows": flows, "visible": visible,
    }  # fmt: skip
    for name, values in arrays.items():
        folder.save(name, values)
    return folder


def run_clip(bench: Bench, clip: Clip, contestants: list[Contestant], films: bool) -> None:
    """All edits of one clip; the kinds of edit share its analysis and inversion."""
    for kind in clip.kinds:
        if bench.over:
            return
        pair = clip.pair(kind, bench.size, bench.backbone.device)
        _Case(bench, clip, pair, [who for who in contestants if who.long or not clip.long], films).run()


class _Case:
    """One edit of one clip by all contestants."""

    def __init__(self, bench: Bench, clip: Clip, pair: Pair, contestants: list[Contestant], films: bool) -> None:
        self.bench, self.clip, self.pair, self.contestants, self.films = bench, clip, pair, contestants, films
        self.folder = save_pair(bench, pair)
        self.cut = true_cut(pair)
        self.keyframes: int | None = None  # the default's
        self.near: str | None = None  # the joint edit's frames
        self.edited: dict[str, dict[str, Any]] = {}  # digest of plan and settings -> its row

    def run(self) -> None:
        pair = self.pair
        kept = {"source": "source", "truth": "truth"}
        self._submit(COPY, pair.source, self._row(COPY))
        self._submit(BOUND, autoencode(self.bench.backbone, pair.truth), self._row(BOUND))
        for who in self.contestants:
            if self.bench.over:
                break
            if who.as_many_keyframes and self.keyframes is None:
                continue  # the default, whose number of keyframes it takes, does not take part
            if self._edit(who):
                kept[who.name] = who.name
        if DEFAULT in kept:
            shown = {name: kept[name] for name in ("source", "truth", *FILMED) if name in kept}
            media = self.bench.results.path.parent / "clips"
            row: dict[str, Any] = {"case": pair.name, "kind": pair.kind, "prompts": [pair.source_prompt, pair.prompt]}
            row |= {"sheet": f"clips/{pair.name}.jpg", "film": f"clips/{pair.name}.mp4" if self.films else None}
            self.bench.submit(
                lambda _: self.bench.results.add("media", row),
                scoring.pictures, self.folder, shown, DEFAULT, media, pair.name, FPS, self.films,
            )  # fmt: skip

    def _edit(self, who: Contestant) -> bool:
        """Run a contestant's edit; returns whether its frames are kept for the pictures."""
        bench, pair = self.bench, self.pair
        planned = bench.plan(who, self.clip.name, pair.source, pair.source_prompt, self.keyframes)
        if who.name == DEFAULT:
            self.keyframes = len(planned.plan.segments)
        row = self._row(who.name) | self._of_plan(planned)
        digest = _digest(planned, bench)
        if digest in self.edited:  # the switched-off part changed nothing in the plan, so the edit is the same
            twin = self.edited[digest]
            self._take_over(row, twin)
            say(f"{pair.name}, {who.name}: plans as {twin['contestant']} does")
            return False
        done = bench.edit(planned, self.clip.name, pair.prompt)
        row |= {"edit_seconds": bench.timed(done.seconds), "peak_memory": done.peak_memory}
        self.edited[digest] = row
        keep = who.name in FILMED
        self._submit(who.name, done.frames, row, keep)
        if who.name == JOINT:
            self.near = JOINT
        say(f"{pair.name}, {who.name}: {row['keyframes']} keyframes, {done.seconds:.1f} s")
        return keep

    def _row(self, name: str) -> dict[str, Any]:
        return {
            "case": self.pair.name, "clip": self.clip.name, "group": self.clip.group, "kind": self.pair.kind,
            "frames": self.clip.frames, "long": self.clip.long, "contestant": name,
        }  # fmt: skip

    def _of_plan(self, planned: Planned) -> dict[str, Any]:
        plan: Plan = planned.plan
        row: dict[str, Any] = {"keyframes": len(plan.segments), "kept": plan.kept_ratio}
        row["plan_seconds"] = self.bench.timed(planned.seconds)
        if self.cut is not None:
            segments, frames = count_crossings(plan, self.cut)
            row |= {"crossing_segments": segments, "crossing_frames": frames, "cuts_found": len(plan.segments.cuts)}
        return row

    def _submit(self, name: str, frames: np.ndarray, row: dict[str, Any], keep: bool = False) -> None:
        """Judge the frames here, on the device, and score them in another process; then the row is complete."""
        found = judge_clip(self.bench.judge, frames, self.pair)
        row |= {key: found[key] for key in ("target", "others", "target_frames", "others_frames")}
        self.folder.save(name, frames)

        def finish(scores: dict[str, float]) -> None:
            row.update(scores)
            waiting = row.pop("waiting", [])
            self.bench.results.add("contest", row)
            row["scored"] = True
            for other in waiting:
                self._take_over(other, row)

        self.bench.submit(finish, scoring.score, self.folder, name, self.near, keep)

    def _take_over(self, row: dict[str, Any], twin: dict[str, Any]) -> None:
        """Complete the row of an edit that was made before under another name, from its `twin`'s row."""
        if not twin.get("scored"):
            twin.setdefault("waiting", []).append(row)
            return
        own = ("contestant", "keyframes", "kept", "plan_seconds", "scored")
        same = {key: value for key, value in twin.items() if key not in own}
        self.bench.results.add("contest", same | row | {"same_as": twin["contestant"]})


def _digest(planned: Planned, bench: Bench) -> str:
    """Digest everything that determines an edit: equal digests mean equal edits."""
    plan, found = planned.plan, hashlib.blake2b(digest_size=16)
    layout = plan.layout
    arrays = [layout.keyframes, layout.correspondence.slots]
    arrays += [*layout.correspondence.index.values(), *layout.correspondence.weights.values()]
    for part in (layout.slimming or {}).values():
        arrays += [part.kept, np.array([part.num_sampled, part.sample_weight])]
    for values in arrays:
        found.update(str(values.shape).encode())
        found.update(np.ascontiguousarray(values).tobytes())
    edit = resolve_edit(planned.config, bench.backbone.profile, plan.config)
    # With `resample` a plan draws a new layout at each step, so that its first layout does not determine the edit.
    drawn = (plan.config, plan.segments.starts.tolist()) if plan.config.resample else None
    found.update(repr((sorted(asdict(edit).items(), key=str), drawn, layout.slimming is None)).encode())
    return found.hexdigest()
