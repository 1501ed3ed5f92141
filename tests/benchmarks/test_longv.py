"""LongV-EVAL: its scores against known answers, its models on small ones of their kind, its clips and its table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adaflow_core.batch.manifest import read_manifest
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.loading import load_backbone
from adaflow_core.video.write import write_video
from benchmarks.longv import __main__ as longv_eval
from benchmarks.longv import data as longv_data
from benchmarks.longv.data import Film, film_of
from benchmarks.longv.models import Clip, is_available
from benchmarks.longv.scorer import JUDGE, LongVScorer
from benchmarks.longv.table import PAPER, markdown, summarise
from benchmarks.longv.video_scores import (
    Consistency,
    Judged,
    Mean,
    Truth,
    WarpError,
    count_frames,
    estimate_flow,
    estimate_flows,
    evenly_spaced,
    stream,
)
from benchmarks.speed import scaling
from benchmarks.truth import CLIPS, load_bundled
from helpers.models.scorers import save_models
from scenes.clips import SIZE
from scenes.training.classifier import load_judge

CPU = torch.device("cpu")
FILM = Film(seed=0, frames=6, size=64)


def unit(*rows: tuple[float, ...]) -> Tensor:
    return nn.functional.normalize(torch.tensor(rows), dim=-1)


# --- known answers --------------------------------------------------------------------------------


def consistency(rows: Tensor, chunk: int = 2) -> float | None:
    score = Consistency()
    for part in rows.split(chunk):
        score.update(part)
    return score.result()


def test_consistency_by_hand() -> None:
    assert consistency(unit((3.0, 4.0), (3.0, 4.0), (3.0, 4.0))) == pytest.approx(1)
    # cos 45 degrees, then cos 90.
    rows = unit((1.0, 0.0), (1.0, 1.0), (-1.0, 1.0))
    assert consistency(rows[:2]) == pytest.approx(math.sqrt(0.5))
    assert consistency(rows) == pytest.approx(math.sqrt(0.5) / 2)
    assert consistency(rows[:1]) is None


def test_consistency_does_not_depend_on_the_chunks() -> None:
    rows = unit(*(tuple(row) for row in torch.randn(11, 5, generator=torch.Generator().manual_seed(0)).tolist()))
    naive = float(nn.functional.cosine_similarity(rows[1:], rows[:-1]).mean())
    for chunk in (1, 2, 3, 11):
        assert consistency(rows, chunk) == pytest.approx(naive)


def test_shuffled_frames_are_less_consistent() -> None:
    angles = torch.linspace(0, 3, 24)
    turning = torch.stack([angles.cos(), angles.sin()], dim=1)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert consistency(turning) > consistency(turning[order]) + 0.1  # type: ignore[operator]


def test_warp_error_by_hand() -> None:
    """A picture moves two pixels to the right: along its flow nothing changes; one level brighter is an error of 1."""
    picture = np.random.default_rng(0).integers(0, 250, (8, 12, 3), dtype=np.uint8)
    moved = np.roll(picture, 2, axis=1)
    flow = np.zeros((2, 8, 12))
    flow[0] = 2
    visible = np.zeros((8, 12), bool)
    visible[:, :10] = True
    frames = np.stack([picture, moved, moved + 1])
    still = (np.zeros((2, 8, 12)), np.ones((8, 12), bool))
    for flows, wanted in (({0: (flow, visible)}, 0.0), ({1: still}, 1.0), ({0: (flow, visible), 1: still}, 0.5)):
        score = WarpError(flows)
        for frame in frames:
            score.update(frame[None])
        assert score.result() == pytest.approx(wanted)
    assert WarpError({}).result() is None


def test_estimated_flow_is_near_the_true_one() -> None:
    film = Film(seed=0, frames=24, size=128)
    first, second = film.draw([10, 11])
    true, seen = film.flow(10)
    found, holds = estimate_flow(first, second)
    both = seen & holds
    assert both.mean() > 0.7
    assert np.abs(found - true)[:, both].mean() < 0.4 * np.abs(true)[:, both].mean()


def test_means_and_spreads() -> None:
    mean = Mean()
    assert mean.result() is None
    for part in (torch.tensor([1.0, 2.0]), torch.tensor([6.0])):
        mean.update(part)
    assert mean.result() == pytest.approx(3)
    assert (
        evenly_spaced(5, 99) == [0, 1, 2, 3, 4] and evenly_spaced(100, 3) == [0, 50, 99] and evenly_spaced(0, 3) == []
    )


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn clips of six frames with their manifest."""
    folder = tmp_path_factory.mktemp("drawn")
    longv_data.draw_clips(folder, clips=2, frames=FILM.frames, size=FILM.size)
    return folder


def test_a_file_is_streamed_whole(folder: Path) -> None:
    path = folder / read_manifest(str(folder / "manifest.jsonl"))[0].video
    parts = list(stream(path, chunk=4))
    assert [part.shape for part in parts] == [(4, 64, 64, 3), (2, 64, 64, 3)] and count_frames(path) == 6
    frames = np.concatenate(parts)
    assert np.array_equal(np.concatenate(list(stream(path, chunk=3, begin=2))), frames[2:])
    assert next(stream(path, (32, 16))).shape == (6, 16, 32, 3)
    error = np.square(frames.astype(np.float64) - FILM.draw(range(6))).mean()
    assert 10 * np.log10(255**2 / error) > 30
    assert set(estimate_flows(path, 1, (0, 3), (64, 64))) == {0, 3}


def test_drawn_clips_have_the_shape_of_the_published_ones(folder: Path) -> None:
    clips = read_manifest(str(folder / "manifest.jsonl"))
    assert len(clips) == 2 and all(set(clip.prompts) == set(longv_data.PROMPTS) for clip in clips)
    assert all(Path(clip.location).is_file() and clip.source_prompt not in clip.prompts.values() for clip in clips)
    assert film_of(clips[0]) == FILM
    times = {path: path.stat().st_mtime_ns for path in folder.glob("videos/*")}
    longv_data.draw_clips(folder, clips=2, frames=FILM.frames, size=FILM.size)
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("videos/*")}, "films are drawn once"


def test_clips_are_drawn_at_the_size_of_the_model(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    model, size = tiny_folder("sd1"), load_backbone(str(tiny_folder("sd1")), device="cpu").profile.size
    drawn = [str(tmp_path), "--clips", "1", "--frames", "2", "--model", str(model)]
    assert longv_data.main(["drawn", *drawn]) == 0 and size != SIZE
    assert read_manifest(str(tmp_path / "manifest.jsonl"))[0].size == f"{size}x{size}"


def test_a_long_film_is_one_scene_in_several_shots() -> None:
    film = Film(seed=3, frames=1024, size=64)
    assert len(film.shots) == 8 and list(film.starts[:3]) == [0, 128, 256] and film.starts[-1] == 1024
    for name in ("kind", "colour", "background", "style"):
        assert len({row.names(name)[0] for row in film.shots}) == 1
    assert len({row.names("motion")[0] for row in film.shots}) == 7
    assert film.place(0) == (0, 0.0) and film.place(127) == (0, 1.0) and film.place(128) == (1, 0.0)
    assert not film.flow(127)[1].any() and film.flow(126)[1].mean() > 0.5, "no flow crosses a cut"
    source, edited = film.draw([5, 600]), film.draw([5, 600], "background")
    assert source.shape == (2, 64, 64, 3) and (source != edited).any(axis=(1, 2, 3)).all()


def test_the_published_data_set_is_indexed(tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match="hf download"):
        longv_data.index_published(tmp_path)
    for name in ("videos", *longv_data.PROMPTS):
        (tmp_path / name).mkdir()
    for number in ("00000", "00001"):
        (tmp_path / f"videos/{number}.mp4").touch()
        for name in longv_data.PROMPTS:
            (tmp_path / f"{name}/{number}.txt").write_text(f'"{name} of {number}."\n')
    clips = read_manifest(str(longv_data.index_published(tmp_path)))
    assert [clip.id for clip in clips] == ["00000", "00001"] and clips[0].source_prompt == ""
    assert clips[1].prompts == {name: f"{name} of 00001." for name in longv_data.PROMPTS}
    (tmp_path / "source").mkdir()
    (tmp_path / "source/00001.txt").write_text("a fire")
    assert read_manifest(str(longv_data.index_published(tmp_path)))[1].source_prompt == "a fire"


def test_the_true_edit_is_best(folder: Path) -> None:
    judge = load_judge(JUDGE)
    film = Film(seed=0, frames=4, size=256)
    truth, source = film.draw(range(4), "background"), film.draw(range(4))
    found = {}
    for name, frames in (("truth", truth), ("source", source)):
        against, judged = Truth(film, "background", [0, 3]), Judged(judge, film, "background")
        for part in np.split(frames, 2):
            against.update(part)
            judged.update(part)
        found[name] = against.result() | judged.result()
    assert found["truth"]["psnr"] is None, "the same pictures have no finite PSNR"
    part_of_it = Truth(film, "background", [0, 1], begin=2)
    part_of_it.update(truth[2:])
    assert part_of_it.result()["psnr"] is None, "and so has an edit of a part of the film"
    assert found["source"]["psnr"] == pytest.approx(found["source"]["psnr_of_source"])
    assert found["truth"]["judge_target"] > found["source"]["judge_target"] == 0
    assert 0.9 < found["source"]["judge_consistency"] <= 1


# --- the scorer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_models(tmp_path_factory.mktemp("models"))


def test_missing_models_are_named(tmp_path: Path) -> None:
    scorer = LongVScorer(clip="nobody/clip", dino=str(tmp_path), dover="none.pt")
    skipped = scorer.skipped()
    assert "hf download nobody/clip" in skipped["semantic_consistency"] and "--aesthetic" in skipped["frame_quality"]
    assert {"prompt_agreement", "object_consistency", "video_quality"} <= set(skipped)
    assert scorer.identity()["clip"] is scorer.identity()["dino"] is None and not is_available("nobody/clip")
    with pytest.raises(AdaFlowError, match="hf download nobody/clip"):
        Clip("nobody/clip", CPU).text("a ball")


def test_all_scores_of_a_file(models: dict[str, Path], folder: Path, tmp_path: Path) -> None:
    scorer = LongVScorer(
        clip=str(models["clip"]), dino=str(models["dino"]), aesthetic=str(models["head.pth"]),
        dover=str(models["dover.pt"]), pairs=3, device="cpu",
    )  # fmt: skip
    assert scorer.skipped() == {} and None not in scorer.identity().values()
    clip = read_manifest(str(folder / "manifest.jsonl"))[0]
    source = Path(clip.location)
    still = write_video(tmp_path / "still.mp4", np.repeat(FILM.draw([0]), 6, axis=0), Fraction(24))
    found = {name: scorer.score(clip, "style", source, path) for name, path in (("copy", source), ("still", still))}
    assert set(found["copy"]) == {
        "semantic_consistency", "prompt_agreement", "frame_quality", "object_consistency", "video_quality", "psnr",
        "psnr_of_source", "judge_target", "judge_others", "judge_consistency", "warp_error", "warp_error_of_source",
    }  # fmt: skip
    json.dumps(found, allow_nan=False)
    assert found["still"]["object_consistency"] > found["copy"]["object_consistency"]
    assert found["copy"]["warp_error"] == pytest.approx(found["copy"]["warp_error_of_source"])
    assert found["still"]["warp_error"] > found["copy"]["warp_error"], "what does not follow the flow is an error"
    assert found["copy"]["psnr"] < found["copy"]["psnr_of_source"] + 1


# --- table and command ----------------------------------------------------------------------------


def row(clip: str, prompt: str, method: str, value: float, **seconds: float) -> dict[str, Any]:
    scores = {"object_consistency": value, "frame_quality": None}
    paper = method == "tokenflow"  # which edits all of ten frames, where the other edits five of them
    own = {"stride": 1, "detail": 0.0, "smoothing": 0.0, "focus": 0.0} if paper else {"stride": 4, "smoothing": 0.9}
    settings = {"steps": 25, "inversion_steps": 25, "agreements": 0, "detail": 1.0, "focus": 1.0} | own
    return {
        "clip": clip, "prompt_name": prompt, "method": method, "scores": scores, "seconds": seconds | {"total": 9},
        "edited": list(range(10 if paper else 5)), "settings": {"edit": settings}, "resumed_at_step": 0,
    }  # fmt: skip


def test_intervals_are_over_clips() -> None:
    rows = [
        row("a", "style", "adaflow", 0.8, encode=1, features=1, invert=4, edit=2),
        row("a", "background", "adaflow", 0.9, encode=1, features=1, edit=4),
        row("b", "style", "adaflow", 0.95, encode=1, features=1, edit=5),  # inverted for another method
        row("b", "style", "tokenflow", 0.5, invert=6, edit=3),
    ]
    found = summarise(rows)
    adaflow = found["adaflow"]
    assert adaflow["clips"] == 2 and adaflow["edits"] == 3
    assert adaflow["scores"]["object_consistency"]["mean"] == pytest.approx((0.85 + 0.95) / 2)
    assert adaflow["scores"]["object_consistency"]["count"] == 2
    assert adaflow["seconds"]["mean"] == pytest.approx((3 + 5) / 2)
    assert adaflow["seconds_alone"]["mean"] == pytest.approx(((3 + 2 + 4) + (5 + 2 + 6 * 5 / 10)) / 2)
    assert adaflow["kinds"]["background"]["object_consistency"] == pytest.approx(0.9)
    text = markdown(found, {"frame_quality": "get it"})
    assert all(f"| {name} |" in text for name in PAPER) and "- frame_quality: get it" in text
    assert "FQ" not in text.split("The paper's")[0], "a score that nobody has is no column of ours"


def test_seconds_do_not_depend_on_who_comes_first() -> None:
    """Nor do they hold what a method does not do, or only the rest of an edit that broke off."""
    plan = {"encode": 1.0, "features": 1.0, "cuts": 1.0}
    first = {"flow": 2.0, "choose": 1.0, "place": 3.0, "decode source": 4.0}
    rows = [
        row("a", "style", "adaflow", 0.8, **plan, **first, invert=5, edit=2),
        row("a", "object", "adaflow", 0.8, **plan, place=1, edit=4),
        row("a", "style", "fast", 0.8, **plan, edit=2),  # edits the same frames
        row("a", "style", "tokenflow", 0.8, **plan, invert=5, edit=8),
    ]
    found = summarise(rows)
    seconds = {name: (part["seconds"]["mean"], part["seconds_alone"]["mean"]) for name, part in found.items()}
    shared = 3 + 2 + 1 + 4 + 5
    assert seconds == {"adaflow": (5, 5 + shared), "fast": (5, 5 + shared), "tokenflow": (8, 8 + 3 + 10)}
    other = {"settings": {"edit": rows[0]["settings"]["edit"] | {"inversion_steps": 50}}}
    found = summarise([*rows[:2], rows[2] | other, rows[3] | {"resumed_at_step": 3}])
    assert found["fast"]["seconds"]["mean"] == 5 and found["fast"]["seconds_alone"]["mean"] is None
    assert found["tokenflow"]["seconds"]["mean"] is None and found["tokenflow"]["edits"] == 1
    two = [rows[0], rows[1] | {"edited": rows[1]["edited"] + [5, 6, 7, 8, 9]}]  # the mean over prompts
    assert summarise(two)["adaflow"]["seconds_alone"]["mean"] == ((5 + shared) + (5 + 3 + 2 + 10)) / 2


def test_methods_by_name() -> None:
    found = longv_eval.configs_of("adaflow,tokenflow,per-frame,paper", steps=None, seed=3)
    assert [plan.method for plan, _ in found.values()] == ["adaflow", "tokenflow", "per-frame", "adaflow"]
    assert found["tokenflow"][1].propagation == "output" and found["paper"][1].steps == 50
    assert {edit.seed for _, edit in found.values()} == {3}
    assert longv_eval.configs_of("paper", steps=4, seed=0)["paper"][1].inversion_steps is None
    with pytest.raises(AdaFlowError, match="flowada"):
        longv_eval.configs_of("flowada", None, 0)


def test_a_wrong_aesthetic_head_is_refused_before_the_first_edit(
    models: dict[str, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "head.pth"
    head.write_text("<!DOCTYPE html>")
    given = ["--manifest", str(folder / "manifest.jsonl"), "--out", str(tmp_path / "out"), "--methods", "per-frame"]
    assert longv_eval.main([*given, "--clip", str(models["clip"]), "--aesthetic", str(head)]) == 2
    assert f"{head} is no aesthetic head" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_is_not_installed_is_said_before_the_first_edit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert longv_eval.main(["--manifest", str(folder / "manifest.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "scipy is missing; run: pip install -r requirements-dev.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_judge_and_clips_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (JUDGE / "judge.json").is_file() and all((CLIPS / entry["file"]).is_file() for entry in load_bundled())


@pytest.mark.slow
@pytest.mark.thorough
def test_the_benchmark_runs_and_goes_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One clip, then both; the second run makes the second clip's edits only."""
    manifest, out, cache = folder / "manifest.jsonl", tmp_path / "out", tmp_path / "cache"
    command = [
        "--manifest", str(manifest), "--out", str(out), "--cache", str(cache), "--methods", "per-frame", "--steps", "1",
        "--device", "cpu", "--clip", "no/clip", "--dino", "no/dino",
    ]  # fmt: skip
    assert longv_eval.main([*command, "--limit", "1"]) == 0
    assert "3 edits made, 0 there before" in capsys.readouterr().out
    assert longv_eval.main(command) == 0
    printed = capsys.readouterr()
    assert "3 edits made, 3 there before" in printed.out and "semantic_consistency is left out" in printed.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["per-frame"]["edits"] == 6 and summary["per-frame"]["clips"] == 2
    assert summary["per-frame"]["scores"]["psnr"]["count"] == 2
    assert (out / "summary.md").read_text().startswith("Means over clips")
    assert longv_eval.main([*command, "--limit", "1"]) == 0
    assert "3 edits there of other clips, methods or settings" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["per-frame"]["clips"] == 1
    assert longv_eval.main(["--manifest", str(tmp_path / "none.jsonl")]) == 2


# --- arithmetic of docs/scaling.md ----------------------------------------------------------------


def test_scaling_by_hand() -> None:
    layout, work = scaling.Layout(), scaling.Work(frames=100, prompts=3, steps=10, branches=3)
    assert layout.outputs == 2 * (5 * 4032 * 320 + 5 * 1008 * 640 + 5 * 252 * 1280 + 66 * 1280)
    assert layout.latents == 32256 and work.passes == 100 * 10 * 10
    # Ten tasks of 3,600 passes' seconds on four GPUs: three waves, ten of twelve places used.
    hour = scaling.Work(frames=36, prompts=3, steps=10, branches=3)
    assert scaling.batch_hours(hour, videos=10, methods=1, gpus=4, pass_seconds=1.0) == (3.0, 10 / 12)
    alone = scaling.exchange(layout, work, keyframes=8, gpus=1, pass_seconds=0.01)
    assert alone.seconds(1e9) == 0 and alone.compute_seconds == pytest.approx(3)
    half = scaling.exchange(layout, work, keyframes=8, gpus=2, pass_seconds=0.01)
    assert half.keys_and_values == 4 * 2 * 2 * layout.outputs and half.neighbours == 4 * layout.outputs
    assert half.compute_seconds == pytest.approx(1.5) and half.keyframes == 4
    assert "| 64 |" in scaling.tables(3.8, 24, 450, 50)


def test_the_page_on_scaling_holds_these_tables() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/scaling.md").read_text()
    for line in scaling.tables(3.8, 24, 450, 50).splitlines():
        assert line in page
