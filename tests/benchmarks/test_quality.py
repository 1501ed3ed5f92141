"""The quality benchmark: its clips, contestants, arithmetic and report, and a tiny run of all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from adaflow_core.config import PRESETS, EditConfig, PlanConfig
from adaflow_core.model.backbone import Backbone
from adaflow_core.types import Correspondence, Grid, Segments, Slimming
from benchmarks.quality.__main__ import main, parse, take_turns
from benchmarks.quality.bench import SHARED, Bench, Edited, Results
from benchmarks.quality.cases import GROUPS, KINDS, MOTIONS, contest_clips, sweep_clips, true_cut, uneven_clips
from benchmarks.quality.contestants import (
    BOUND,
    COPY,
    EVERYONE,
    METHODS,
    PARTS,
    SAME_COUNT,
    choose_contestants,
    count_crossings,
    parse_variants,
)
from benchmarks.quality.report import plots
from benchmarks.quality.report.criteria import all_criteria, keyframe_criteria, pair_criteria
from benchmarks.quality.report.page import render_page
from benchmarks.quality.report.summary import (
    OUTPUT,
    Contest,
    Summary,
    best_by_way,
    keyframes_needed,
    mean_over_clips,
    paired_difference,
    sweep_table,
    uniform_for_adaptive,
)
from benchmarks.quality.report.tables import render_markdown
from benchmarks.quality.report.write import merge, write_reports
from benchmarks.quality.sweeps import ISOLATED, by_chance, by_score, by_time, keyframes
from benchmarks.truth import EDITS
from scenes.training.classifier import Judge

SIZE = 64

# --- clips ----------------------------------------------------------------------------------------


def test_clips_spread_over_kinds_and_repeat() -> None:
    def some(split: str) -> list:
        return list(islice(contest_clips(split, 0, frames=32, long_frames=256), 18))

    clips = some("test")
    assert clips == some("test")
    short, long = [c for c in clips if not c.long], [c for c in clips if c.long]
    assert len(long) == 2 and {c.frames for c in long} == {256} and {c.frames for c in short} == {32}
    assert [c.group for c in short[:8]] == list(MOTIONS) == [c.group for c in short[8:]]
    # Two rounds give every motion every kind of edit.
    assert all({k for c in short if c.group == group for k in c.kinds} == set(KINDS) for group in MOTIONS)
    assert set(KINDS) == set(EDITS)
    names = {c.name for c in clips} | {c.name for c in some("val")}
    assert len(names) == 36


def test_sweeps_take_their_groups_in_turn_and_other_seeds() -> None:
    clips = list(islice(sweep_clips("keyframes", "test", 0, frames=48), 9))
    assert [c.group for c in clips[:3]] == list(GROUPS)
    assert {c.motion for c in clips if c.group == "steady motion"} == set(GROUPS["steady motion"])
    prune = list(islice(sweep_clips("prune", "test", 0, frames=48), 9))
    contest = list(islice(contest_clips("test", 0, frames=32, long_frames=0), 9))
    assert len({c.seed for c in [*clips, *prune, *contest]}) == 27


def test_a_clip_is_drawn_whole_with_its_cut() -> None:
    clip = next(c for c in contest_clips("test", 0, frames=8, long_frames=0) if c.group == "scene cut")
    pair = clip.pair("colour", SIZE)
    cut = true_cut(pair)
    assert cut is not None and 2 <= cut <= 6 and len(pair.source) == 8
    change = np.abs(np.diff(pair.source.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert change.argmax() + 1 == cut
    assert np.array_equal(pair.source, clip.pair("style", SIZE).source)  # the kinds share their inversion
    still = next(c for c in contest_clips("test", 0, frames=4, long_frames=0) if c.group == "pan")
    assert true_cut(still.pair("colour", SIZE)) is None


def test_who_enters_is_judged_only_when_in_sight() -> None:
    clip = next(c for c in contest_clips("test", 0, frames=6, long_frames=0) if c.group == "entering")
    shown = clip.pair("colour", SIZE).shown
    assert shown[0] < 0.02 < shown[-1]


# --- contestants ----------------------------------------------------------------------------------


def test_every_part_switches_one_thing_off() -> None:
    for who in PARTS:
        plan, edit = who.make_configs("a ball", 5)
        count = 5 if who.as_many_keyframes else None
        changed = [n for n in vars(plan) if getattr(plan, n) != getattr(PlanConfig(source_prompt="a ball"), n)]
        changed += [n for n in vars(edit) if getattr(edit, n) != getattr(EditConfig(), n)]
        assert plan.keyframes == count
        assert len(set(changed) - {"keyframes"}) + who.even == (who.name != SAME_COUNT)
        assert who.against in EVERYONE
    assert len(EVERYONE) == len(METHODS) + len(PARTS)


def test_the_presets_take_part_at_the_models_steps_and_at_their_own() -> None:
    plan, edit = PRESETS["paper"]
    assert EVERYONE["paper-50"].make_configs("", None) == (plan, edit)
    assert EVERYONE["paper"].edit == replace(edit, steps=None, inversion_steps=None)
    assert EVERYONE["paper-adapted"].edit.guidance is None and EVERYONE["paper-adapted"].edit.propagation == "output"
    assert EVERYONE["tokenflow"].plan == PRESETS["tokenflow"][0]


def test_contestants_by_name_and_variants() -> None:
    assert [who.name for who in choose_contestants("no-blend,adaflow")] == ["adaflow", "no-blend"]
    assert (
        len(choose_contestants("all")) == len(EVERYONE)
        and choose_contestants("none") == []
        and len(choose_contestants("methods")) == len(METHODS)
    )
    assert [who.name for who in choose_contestants("methods,-parts,-joint,-adaflow")] == [
        who.name for who in METHODS[2:]
    ]
    with pytest.raises(SystemExit, match="choose of"):
        choose_contestants("everything")
    first, second = parse_variants("sampled=0.5; importance=uniform,scales=1+2,detail=0.5")
    assert first.plan == PlanConfig(sampled=0.5) and first.against == "adaflow"
    assert second.plan == PlanConfig(importance="uniform", scales=(1, 2)) and second.edit == EditConfig(detail=0.5)
    with pytest.raises(SystemExit, match="SETTING=VALUE"):
        parse_variants("nothing=1")


class _Plan:
    """As much of a plan as `crossings` reads."""

    def __init__(self, starts: list[int], keyframes: list[int], slots: list[list[int]], weights: list[list[float]]):
        self.segments = Segments(np.array(starts), np.array(keyframes), np.array([], np.int64), len(slots))
        grid = Grid(1, 1)
        values = np.array(weights, np.float16)[:, :, None]
        found = Correspondence(np.array(slots), {grid: values}, {grid: np.zeros(values.shape, np.int16)})
        self.layout = type("Layout", (), {"keyframes": self.segments.keyframes, "correspondence": found})()


def test_crossings_of_a_cut_are_seen() -> None:
    weights = [[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]
    crossing = _Plan([0, 3], [0, 3], [[0, 0], [0, 1], [0, 1], [1, 1]], weights)
    assert count_crossings(crossing, 2) == (1, 2)  # type: ignore[arg-type]
    unblended = [[1.0, 0.0]] * 4
    kept_apart = _Plan([0, 2], [0, 3], [[0, 1], [0, 1], [1, 0], [1, 0]], unblended)
    assert count_crossings(kept_apart, 2) == (0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("choose", [by_score, by_chance(0), by_time(np.array([0, 5, 6]))])
def test_ways_to_keep_tokens_keep_as_many_and_all_of_their_own(choose: Any) -> None:
    K, n, count = 3, 4, 6
    scores = np.random.default_rng(0).random((K, K, n)).astype(np.float16)
    nothing = np.zeros((K, count))
    kept = choose(Slimming(Grid(2, 2), scores, nothing, 0, 1.0), count)
    assert kept.tokens.shape == (K, count) and (kept.tokens.diff(dim=1) > 0).all() and kept.num_sampled == 0
    for k in range(K):
        assert set(range(k * n, k * n + n)) <= set(kept.tokens[k].tolist())


def test_nearest_in_time_takes_the_neighbours() -> None:
    nothing = np.zeros((3, 8))
    kept = by_time(np.array([0, 5, 6]))(
        Slimming(Grid(2, 2), np.zeros((3, 3, 4), np.float16), nothing, 0, 1.0), 8
    ).tokens
    assert (kept[0] < 8).all() and (kept[1] >= 4).all() and (kept[2] >= 4).all()


# --- arithmetic -----------------------------------------------------------------------------------


def contest_row(case: str, who: str, psnr: float, **more: Any) -> dict[str, Any]:
    clip, kind = case.split("-")
    row = {
        "case": case, "clip": clip, "kind": kind, "group": "pan", "frames": 32, "long": False, "contestant": who,
        "psnr": psnr, "psnr_inside": psnr - 3, "psnr_outside": None, "ssim_inside": 0.7, "ssim_outside": None,
        "temporal": 2.0, "target": True, "others": True, "target_frames": 1.0, "others_frames": 1.0,
    }  # fmt: skip
    return row | more


def test_edits_of_one_clip_are_one_observation() -> None:
    found = mean_over_clips(pd.Series([1.0, 3.0, 4.0, math.nan], index=["a", "a", "b", "c"]))
    assert found["count"] == 2 and found["mean"] == 3
    rows = [contest_row(f"{clip}-colour", who, p) for clip, p in (("a", 20), ("b", 30)) for who in ("x", "y")]
    rows = [row | {"psnr": row["psnr"] + (row["contestant"] == "x")} for row in rows]
    difference = Contest.of(rows).difference("x", "y", "psnr")
    assert difference["mean"] == 1 and difference["low"] == difference["high"] == 1


def test_temporal_error_counts_only_where_the_edit_is_seen() -> None:
    rows = [
        contest_row("a-colour", BOUND, 30, temporal=2.0),
        contest_row("a-colour", "x", 25, temporal=3.0),
        contest_row("a-colour", COPY, 10, temporal=1.0, target=False),
    ]
    contest = Contest.of(rows)
    assert contest.mean("x", "temporal")["mean"] == 1.5 and contest.mean(COPY, "temporal")["mean"] is None
    assert contest.difference(COPY, "x", "temporal")["count"] == 0


def test_keyframes_needed_for_a_level() -> None:
    points = [(2.0, 20.0), (4.0, 30.0), (8.0, 34.0)]
    assert keyframes_needed(points, 25) == 3 and keyframes_needed(points, 33) == 7 and keyframes_needed(points, 10) == 2
    assert keyframes_needed(points, 40) == math.inf
    rows = [
        {"case": "a", "group": "uneven motion", "way": way, "asked": k, "psnr_near": y}
        for way, ys in (("adaptive", (30, 34)), ("uniform", (20, 30)))
        for k, y in zip((2, 4), ys, strict=True)
    ]
    table = sweep_table(rows)
    assert uniform_for_adaptive(table) == [(2, 30, 4), (4, 34, math.inf)]
    adaptive, uniform = (table[table["way"] == way] for way in ("adaptive", "uniform"))
    assert paired_difference(adaptive, uniform, "psnr_near")["mean"] == 7


def test_keyframes_are_judged_in_both_ways_of_propagation() -> None:
    ways = {
        "adaptive": (30, 34, 36), "uniform": (20, 30, 34),
        OUTPUT: (20, 25, 26), f"method=uniform,{OUTPUT}": (19, 22, 24),
        f"scales=1,{OUTPUT}": (19, 24, 25),
    }  # fmt: skip
    rows = [
        {"case": "a", "group": "uneven motion", "way": way, "asked": k, "psnr_near": y}
        for way, ys in ways.items()
        for k, y in zip((2, 4, 8), ys, strict=True)
    ]
    found = {c.text: (c.value, c.passed) for c in keyframe_criteria(sweep_table(rows))}
    assert found == {
        "uneven motion: uniform needs twice adaptive's keyframes": ("4.0 for 2, 8.0 for 4", True),
        "uneven motion, outputs propagated: uniform needs twice adaptive's keyframes": ("2.7 for 2, >8 for 4", False),
        "outputs propagated: nearer to joint than with scales=1": ("+1.00 dB", False),  # one clip has no interval
    }


def made_pairs() -> list[dict]:
    rows = [
        {"case": case, "group": "uneven motion", "kind": "colour", "way": "pair", "frames": [a, b],
         "psnr": 20.0, "psnr_near": 40 - abs(a - 9 - shift) - abs(b - 25)}
        for shift, case in enumerate(("p", "q", "r")) for a, b in combinations(range(1, 32, 4), 2)
    ]  # fmt: skip
    others = (("adaptive", [8, 25], 39.0), ("2 even", [8, 24], 38.0), ("4 even", [4, 12, 20, 28], 40.5))
    return rows + [
        {"case": case, "group": "uneven motion", "kind": "colour", "way": way, "frames": frames, "psnr": 20.0,
         "psnr_near": near}
        for case in ("p", "q", "r") for way, frames, near in others
    ]  # fmt: skip


def test_the_best_pair_of_keyframes_bounds_what_choosing_can_do() -> None:
    rows = sweep_table(made_pairs())
    best = best_by_way(rows).xs("best", level="way")
    assert list(best["frames"]) == 3 * [[9, 25]] and list(best["psnr_near"]) == [40, 39, 38]
    chosen, reach = pair_criteria(rows)
    assert chosen.value.startswith("+0.00 dB") and chosen.passed
    assert reach.value.startswith("-1.50 dB") and not reach.passed
    assert pair_criteria(rows[:0]) == [] and pair_criteria(rows[rows["way"] != "adaptive"]) == []


def test_pairs_are_tried_on_the_uneven_clips_of_the_number_of_keyframes() -> None:
    uneven = [clip for clip in islice(sweep_clips("keyframes", "test", 0, frames=48), 9) if clip.motion == "uneven"]
    found = list(islice(uneven_clips("test", 0, frames=48), len(uneven)))
    assert [clip.seed for clip in found] == [clip.seed for clip in uneven] and len(uneven) == 3
    assert not {clip.name for clip in found} & {clip.name for clip in uneven}


def test_parts_take_turns_by_their_weight_until_time_is_over() -> None:
    calls: list[str] = []

    def step(name: str, limit: int):
        def run() -> bool:
            calls.append(name)
            return calls.count(name) < limit

        return run

    take_turns([(1.0, step("a", 3)), (1.0, step("b", 2))], lambda: False)
    assert sorted(calls) == ["a", "a", "a", "b", "b"] and calls[:2] == ["a", "b"]
    calls.clear()
    take_turns([(1.0, step("a", 9))], lambda: len(calls) == 4)
    assert len(calls) == 4


def test_arguments() -> None:
    options = parse(["--sweep", "prune=0.6,0", "--shard", "1/3", "--out", "folder"])
    assert options.sweep == [("prune", [0.0, 0.6])] and options.shard == (1, 3)
    assert options.json == Path("folder/quality.json") and options.html == Path("folder/index.html")
    assert parse(["--json", "a/b.json", "--html", "c.html"]).markdown is None
    for wrong in (["--shard", "3/3"], ["--sweep", "steps=1"], ["--kinds", "weather"]):
        with pytest.raises(SystemExit):
            parse(wrong)


# --- the report -----------------------------------------------------------------------------------


def made_contest(rng: np.random.Generator, clips: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the contest and of its media."""
    contest, media = [], []
    everyone = [who.name for who in EVERYONE.values()]
    shifts = {name: -place / 12 for place, name in enumerate(everyone)}
    shifts |= {BOUND: 5, COPY: -10, "joint": 0.2, "per-frame": -1.5}
    measured = {
        "keyframes": 5, "kept": 0.4, "plan_seconds": 0.4, "edit_seconds": 1.2, "peak_memory": 2 * 2**30,
        "crossing_segments": 0, "crossing_frames": 0,
    }  # fmt: skip
    for number in range(clips):
        for kind in KINDS[:2] if number % 2 else KINDS[2:]:
            case, base = f"{number}-{kind}", rng.normal(25, 3)
            group = list(MOTIONS)[number % len(MOTIONS)]
            for who in [COPY, BOUND, *everyone]:
                row = contest_row(
                    case, who, base + shifts[who] + rng.normal(0, 0.3), group=group, long=number % 5 == 4,
                    temporal=2.0 + abs(shifts[who]) / 3 + rng.normal(0, 0.1), target=who != COPY,
                )  # fmt: skip
                contest.append(row | (measured | {"psnr_near": 36 + rng.normal()} if who in everyone else {}))
            media.append({
                "case": case, "kind": kind, "prompts": ["a red ball", "a blue ball"], "sheet": f"clips/{case}.jpg",
                "film": f"clips/{case}.mp4" if number < 1 else None,
            })  # fmt: skip
    return contest, media


def made_results(clips: int = 6) -> dict[str, Any]:
    """Results as a run leaves them, their scores drawn at random."""
    rng = np.random.default_rng(0)
    contest, media = made_contest(rng, clips)
    prune = [
        {"case": str(c), "group": "pan", "kind": "colour", "keyframes": 32, "ratio": ratio, "way": way,
         "psnr": 25 + rng.normal(0, 0.1) - ratio * (1 + w),
         "psnr_near": None if ratio == 0 else 50 - 20 * ratio - 3 * w}
        for c in range(4)
        for w, way in enumerate(("as planned", "by score alone", "at random", "nearest frames"))
        for ratio in ((0.0, 0.3, 0.6, 0.8, 0.9, 0.95) if w == 0 else (0.3, 0.6, 0.8, 0.9, 0.95))
    ]  # fmt: skip
    keyframes = [
        {"case": f"{group}{c}", "group": group, "kind": "colour", "way": way, "asked": k, "keyframes": k,
         "psnr_near": 30 + 3 * math.log(k) + 2 * (way == "adaptive") + rng.normal(0, 0.5)}
        for group in GROUPS for c in range(3) for way in ("adaptive", "uniform") for k in (2, 3, 4, 6, 8, 12, 16)
    ]  # fmt: skip
    names = ("name", "text", "group", "against")
    meta = {
        "command": "python -m benchmarks.quality", "commit": "0123abc", "split": "test", "scene_seed": 0, "size": 64,
        "frames": [32, 256, 48], "feature_width": 64,
        "machine": {"model": "embedded", "fingerprint": "f", "device": "cpu", "cores": 2, "torch": "2"},
        "contestants": [{n: getattr(who, n) for n in names} for who in EVERYONE.values()],
    }  # fmt: skip
    return {
        "meta": meta, "contest": contest, "prune": prune, "keyframes": keyframes, "pairs": made_pairs(), "media": media,
    }  # fmt: skip


@pytest.mark.thorough
def test_the_report_says_what_must_be_shown(tmp_path: Path) -> None:
    data = made_results()
    criteria = all_criteria(Summary.of(data))
    assert list(criteria) == ["Slimming", "Keyframes", "The default against the others", "What each part gains"]
    by_text = {c.text: c for topic in criteria.values() for c in topic}
    assert not by_text["at 80% pruning, at most 0.3 dB further from the truth than unpruned"].passed
    assert not by_text["at 80% pruning, at least 35 dB to the unpruned edit"].passed  # 50 - 20 * 0.8 = 34
    assert by_text["at 80% pruning, as planned is nearer to the unpruned edit than at random"].passed
    assert by_text["no segment and no blend crosses a cut"].passed
    assert by_text["within 0.5 dB of joint on short clips"].passed
    data["contest"][2]["crossing_frames"] = 1  # of the joint edit: not the default's
    keyframes = {c.text: c for c in all_criteria(Summary.of(data))["Keyframes"]}
    assert keyframes["no segment and no blend crosses a cut"].passed
    text = render_markdown(Summary.of(data))
    assert "| adaflow |" in text and "`python -m benchmarks.quality`" in text and "0123abc" in text
    write_reports(data, tmp_path / "quality.json", tmp_path / "index.html", None)
    html = (tmp_path / "index.html").read_text()
    assert (
        html.count("<svg") == 2 + 4 + 2 + 3 + 3
        and html.count('class="ring') == 9
        and "no-blend" in html
        and "nan" not in html
    )
    assert html == render_page(Summary.of(json.loads((tmp_path / "quality.json").read_text())))


def test_results_of_shards_become_one(tmp_path: Path) -> None:
    data = made_results()
    half = len(data["contest"]) // 2
    parts = [data | {"contest": data["contest"][:half]}, data | {"contest": data["contest"][half - 3 :]}]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "quality.json").write_text(json.dumps(part))
    found = merge([tmp_path / str(number) / "quality.json" for number in range(2)], tmp_path / "all.json")
    key = lambda row: (row["case"], row["contestant"])  # noqa: E731
    assert sorted(found["contest"], key=key) == sorted(data["contest"], key=key)
    assert len(found["prune"]) == len(data["prune"]) and len(found["meta"]["runs"]) == 2


def write_run(folder: Path, psnr: float, **meta: Any) -> Path:
    """A run's results with one row and its sheet, whose text is the PSNR."""
    data = made_results(clips=1)
    row = contest_row("0-colour", "adaflow", psnr)
    media = {"case": "0-colour", "prompts": ["a", "b"], "sheet": "clips/0.jpg", "film": None}
    nothing: dict[str, Any] = {"prune": [], "keyframes": [], "pairs": []}
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    (folder / "clips" / "0.jpg").write_text(str(psnr))
    results = {"meta": data["meta"] | meta, "contest": [row], **nothing, "media": [media]}
    (folder / "quality.json").write_text(json.dumps(results) + "\n")
    return folder / "quality.json"


def test_a_second_report_is_of_what_there_is_then(tmp_path: Path) -> None:
    """Its own file of before, which a pattern of names finds first, is no source."""
    out, run = tmp_path / "all", write_run(tmp_path / "run", 20.0)
    for psnr in (20.0, 30.0):
        write_run(tmp_path / "run", psnr)
        main(["--from", *map(str, sorted(tmp_path.glob("*/quality.json"))), "--out", str(out)])
        assert [row["psnr"] for row in json.loads((out / "quality.json").read_text())["contest"]] == [psnr]
        assert (out / "clips" / "0.jpg").read_text() == str(psnr)
        assert f"| {psnr:.2f} |" in (out / "RESULTS.md").read_text()
    before = run.read_text()
    main(["--from", str(run), "--out", str(run.parent)])
    assert run.read_text() == before and (run.parent / "index.html").exists()
    with pytest.raises(SystemExit, match="results of a run"):
        main(["--from", str(run), str(write_run(tmp_path / "more", 25.0)), "--out", str(run.parent)])
    assert run.read_text() == before


def test_a_report_says_what_its_runs_differ_in_and_mixes_no_splits(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 20.0), write_run(tmp_path / "b", 21.0, commit="4567def", scene_seed=3)
    text = render_markdown(Summary.of(merge([first, second], tmp_path / "all.json")))
    assert (
        "commit: 0123abc; 4567def" in text and "test split, scene seed 0, edit seed 0; test split, scene seed 3" in text
    )
    assert text.count("python -m benchmarks.quality`") == 2  # the file's own head, and the command of both
    with pytest.raises(SystemExit, match=r"split is test in .* and val in .*; report on each alone"):
        merge([first, write_run(tmp_path / "c", 22.0, split="val")], tmp_path / "all.json")


def test_plots_are_svg_in_the_colours_of_the_page() -> None:
    points = pd.DataFrame({"mean": [30.0, 33.0], "low": [29.0, 32.0], "high": [31.0, 34.0]}, index=[2, 4])
    svg = plots.lines({"a": points}, "x", "y", {"<limit>": 31})
    assert svg.startswith("<svg") and "#2563eb" not in svg and "var(--c0)" in svg and ' id="figure' not in svg
    line = svg[svg.index('class="line"') :]
    assert line[: line.index("</g>\n   </g>")].count("<use") == 2 and 'class="band"' in svg and "&lt;limit&gt;" in svg
    assert plots.lines({"a": points[:0]}, "x", "y") == plots.intervals(points[:0], "x") == ""
    rows = pd.DataFrame({"mean": [1.0, 1.0], "low": [0.5, -0.5], "high": [1.5, 2.5]}, index=["sure", "unsure"])
    assert plots.intervals(rows, "gain").count('class="dot unsure"') == 1


# --- all of it ------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_tiny_run(tmp_path: Path) -> None:
    from scenes.captions import vocabulary
    from scenes.training import embedded
    from scenes.training.classifier import Judge, save_judge

    torch.manual_seed(0)
    embedded.save(embedded.build(vocabulary(), size=SIZE), tmp_path / "model")
    save_judge(Judge(), tmp_path / "judge")
    given = [
        "--model", str(tmp_path / "model"), "--judge", str(tmp_path / "judge"), "--device", "cpu", "--size", str(SIZE),
        "--frames", "3", "--long-frames", "0", "--clips", "1", "--each", "1", "--films", "1", "--workers", "1",
        "--methods", "adaflow,joint,with-scales", "--variants", "sampled=0.5", "--sweep", "prune=0,0.5",
        "--sweep", "keyframes=2", "--sweep", "pairs=1", "--sweep-clips", "1", "--sweep-frames", "3",
        "--sweep-keyframes", "3",
        "--profile", "steps=2", "--profile", "inversion_steps=2", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    main(given)
    data = json.loads((tmp_path / "out/quality.json").read_text())
    rows = {row["contestant"]: row for row in data["contest"]}
    assert set(rows) == {COPY, BOUND, "joint", "adaflow", "with-scales", "sampled=0.5"}
    assert rows["adaflow"]["psnr_near"] and rows[BOUND]["psnr"] > 0 and rows["adaflow"]["peak_memory"]
    assert {row["way"] for row in data["prune"]} == {"as planned", "by score alone", "at random", "nearest frames"}
    assert [row["way"] for row in data["keyframes"]] == ["adaptive", "uniform", "sampled=0.5"]
    assert [row["way"] for row in data["pairs"]] == ["adaptive", "2 even", "4 even", *3 * ["pair"]]
    assert data["pairs"][-1]["frames"] == [1, 2]
    [media] = data["media"]
    assert all((tmp_path / "out" / media[name]).stat().st_size > 1000 for name in ("sheet", "film"))
    assert "| adaflow |" in (tmp_path / "out/RESULTS.md").read_text()
    main(["--from", str(tmp_path / "out/quality.json"), "--out", str(tmp_path / "again")])
    assert (tmp_path / "again" / media["film"]).exists() and (tmp_path / "again/index.html").exists()


def test_every_way_of_a_sweep_edits_all_frames_and_begins_with_what_all_share(
    tiny_backbone: Callable[[str], Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, done, edit = tiny_backbone("sd1"), list[Edited](), Bench.edit
    backbone = replace(backbone, profile=replace(backbone.profile, steps=1, inversion_steps=1))
    monkeypatch.setattr(Bench, "edit", lambda *given: done.append(edit(*given)) or done[-1])
    clip = next(c for c in sweep_clips("keyframes", "val", 0, frames=3) if c.group == "uneven motion")
    with ThreadPoolExecutor(1) as pool:
        results = Results(tmp_path / "quality.json", {})
        bench = Bench(backbone, Judge(), results, tmp_path, pool, 1, math.inf, SIZE, False)
        keyframes(bench, clip, [2], parse_variants("smoothing=0.5"))
        bench.collect()
    assert [row["way"] for row in results.data["keyframes"]] == ["adaptive", "uniform", "smoothing=0.5"]
    assert len(done) == 4 and all(ISOLATED.items() <= way.settings.items() for way in done)
    assert (tmp_path / "cache" / "cuts").exists()
    assert {kind.name for kind in bench.engine().cache.root.iterdir()} == set(SHARED)
