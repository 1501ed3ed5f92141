"""The edit benchmark: its truth pairs, what it compares with, its arithmetic and its commands."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from adaflow_core.config import ModelProfile, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.model.loading import EMBEDDED, load_backbone
from adaflow_core.report.scores import psnr
from adaflow_core.storage.cache import Cache
from benchmarks import edits, embedded_model
from benchmarks.intervals import mean_interval, share_interval
from benchmarks.metrics import warp_error
from benchmarks.output import plain_json
from benchmarks.picture import full_size
from benchmarks.run import clip_size, make_configs, profile_changes
from benchmarks.scores import check_criteria, fill_flat, fit_affine, judge_clip, score_regions, summarise
from benchmarks.truth import EDITS, Pair, draw_bundled, load_bundled, random_pair, random_rows
from scenes.clips import truth
from scenes.training.classifier import ATTRIBUTES

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64


@pytest.fixture(scope="module")
def pairs() -> dict[str, Pair]:
    """A pair of each kind of one random clip."""
    row = random_rows(1, seed=0, style="photo")
    return {kind: random_pair(row, kind, 4, 0, SIZE) for kind in EDITS}


def grown(mask: np.ndarray) -> np.ndarray:
    """[T, H, W] with a border of one pixel: outlines are drawn smooth."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    T, h, w = mask.shape
    return np.any([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=0).reshape(T, h, w)


@pytest.mark.parametrize("kind", EDITS)
def test_pairs_differ_inside_the_region_only(pairs: dict[str, Pair], kind: str) -> None:
    pair = pairs[kind]
    differs = (pair.source != pair.truth).any(axis=-1)
    assert pair.source.shape == pair.truth.shape == (4, SIZE, SIZE, 3) and pair.region.shape == differs.shape
    assert not (differs & ~grown(pair.region)).any()
    assert differs[pair.region].mean() > (0.3 if kind == "object" else 0.7)
    assert pair.source_prompt != pair.prompt
    assert pair.region.all() == (kind == "style")


def test_pairs_are_drawn_by_seed() -> None:
    rows = random_rows(3, seed=1)
    first, again, other = (random_pair(rows[i : i + 1], "colour", 2, s, SIZE) for i, s in ((0, 0), (0, 0), (1, 1)))
    assert np.array_equal(first.truth, again.truth) and not np.array_equal(first.source, other.source)
    assert not rows.present2.any() and len(set(rows.names("motion"))) == 3


def test_bundled_pairs_are_those_of_the_clips() -> None:
    entries = load_bundled()
    assert {entry["kind"] for entry in entries} == set(EDITS)
    for entry in (next(e for e in entries if e["kind"] == kind) for kind in EDITS):
        entry = entry | {"frames": 2}
        source, edited, mask = truth(entry, SIZE)
        pair = draw_bundled(entry, size=SIZE)
        assert np.array_equal(pair.source, source) and np.array_equal(pair.truth, edited)
        if entry["kind"] in ("colour", "object"):
            assert np.array_equal(pair.region, mask)
        if entry["kind"] == "background":
            assert not (pair.region & mask).any()
        assert pair.file is not None and pair.file.is_file() and pair.prompt == entry["prompt"]


def test_flow_carries_the_truth_onto_itself(pairs: dict[str, Pair]) -> None:
    pair = pairs["colour"]
    flows, visible = pair.flows()
    assert flows.shape == (3, 2, SIZE, SIZE) and visible.mean() > 0.5
    assert warp_error(pair.truth, flows, visible) < warp_error(pair.truth[::-1], flows, visible)


@pytest.mark.parametrize("kind", EDITS)
def test_affine_oracle_is_no_worse_than_a_copy(pairs: dict[str, Pair], kind: str) -> None:
    pair = pairs[kind]
    best, copied = (
        score_regions(frames, pair) for frames in (fit_affine(pair.source, pair.truth, pair.region), pair.source)
    )
    flat = score_regions(fill_flat(pair.source, pair.truth, pair.region), pair)
    assert best["psnr_inside"] >= copied["psnr_inside"] and best["psnr_inside"] >= flat["psnr_inside"] - 0.1


def test_affine_oracle_finds_a_map_that_is_there() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    region = np.zeros((2, 8, 8), bool)
    region[:, :4] = True
    wanted = source.copy()
    wanted[region] = 255 - source[region][:, ::-1]
    assert np.array_equal(fit_affine(source, wanted, region), wanted)


def test_flat_fill_is_the_mean_inside_and_the_source_outside(pairs: dict[str, Pair]) -> None:
    pair = pairs["colour"]
    filled = fill_flat(pair.source, pair.truth, pair.region)
    assert len(np.unique(filled[pair.region], axis=0)) == 1
    assert np.abs(filled[pair.region][0] - pair.truth[pair.region].mean(axis=0)).max() <= 0.5
    assert np.array_equal(filled[~pair.region], pair.source[~pair.region])
    wash = np.broadcast_to(filled[pair.region][0] ^ 64, pair.source.shape)
    assert psnr(filled, pair.truth, pair.region) > psnr(wash, pair.truth, pair.region)


def test_nothing_lies_outside_a_change_of_style(pairs: dict[str, Pair]) -> None:
    scores = score_regions(pairs["style"].truth, pairs["style"])
    assert scores["psnr_inside"] == math.inf and math.isnan(scores["psnr_outside"])
    assert plain_json(scores) == {
        "psnr_inside": None, "psnr_outside": None, "ssim_inside": 1.0, "ssim_outside": None,
    }  # fmt: skip
    assert plain_json([0.000123456, 1234.5678]) == [0.000123456, 1234.57]


class Oracle(torch.nn.Module):
    """Stands in for the judge: gives each frame in turn the labels it was made with."""

    def __init__(self, labels: dict[str, list[int]]) -> None:
        super().__init__()
        self.labels, self.seen = labels, 0

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        part = slice(self.seen, self.seen + len(images))
        self.seen += len(images)
        return {name: torch.tensor(values[part]) for name, values in self.labels.items()}


def test_verdict_tells_the_target_from_the_others(pairs: dict[str, Pair]) -> None:
    pair = pairs["colour"]
    right = {name: [int(getattr(pair.after, name)[0])] * 4 for name in ATTRIBUTES}
    unedited = int(pair.before.colour[0])
    found = judge_clip(Oracle(right), pair.truth, pair)
    assert (found["target"], found["target_frames"], found["others"], found["others_frames"]) == (True, 1, True, 1)
    found = judge_clip(Oracle(right | {"colour": [unedited] * 3 + right["colour"][:1]}), pair.truth, pair)
    assert (found["target"], found["target_frames"], found["others"]) == (False, 0.25, True)
    wrong = [(right["style"][0] + 1) % 5]
    found = judge_clip(Oracle(right | {"style": wrong + right["style"][:3]}), pair.truth, pair)
    assert (found["target"], found["others"], found["others_frames"]) == (True, True, 0.75)


def test_intervals() -> None:
    found = mean_interval([1.0, 2.0, 3.0, math.inf, math.nan])
    assert (
        found["mean"] == 2
        and found["count"] == 3
        and found["high"] == pytest.approx(2 + 4.303 / math.sqrt(3), rel=1e-3)
    )
    assert mean_interval([math.nan])["mean"] is None
    share = share_interval([True] * 20)
    assert share["mean"] == 1 and share["low"] == pytest.approx(0.839, abs=1e-3) and share["high"] == pytest.approx(1)


def row(gain: float, ssim: float, outside: float, right: bool) -> dict:
    def scores(inside: float, likeness: float, rest: float) -> dict[str, float]:
        return {"psnr_inside": inside, "ssim_inside": likeness, "psnr_outside": rest, "ssim_outside": 1.0}

    judged = {"target": right, "others": True, "target_frames": float(right), "others_frames": 1.0}
    return {
        "edit": scores(10 + gain, ssim, outside), "copy": scores(10, 0.5, math.inf),
        "autoencoded": scores(30, 0.9, 26), "flat": scores(15, 0.4, math.inf), "affine": scores(25, 0.8, 40),
        "judge": judged, "judge_on_truth": judged,
    }  # fmt: skip


def test_criteria_pass_what_reaches_them_and_fail_what_does_not() -> None:
    good = [row(5, 0.7, 25.5, True), row(6, 0.72, 24.7, True)]
    assert [c.passed for c in check_criteria(summarise(good))] == [True] * 6
    bad = [row(3, 0.5, 20, True), row(3, 0.3, 22, False)]
    assert [c.passed for c in check_criteria(summarise(bad))] == [False] * 5 + [True]


def test_arguments_become_settings() -> None:
    given = ["scenes", "--guidance=4", "--steps=8", "--negative=source", "--method=joint", "--prune=0.3"]
    plan, edit = make_configs(edits.parse([*given, "--injection-conv=0"]), "a ball")
    assert (plan.method, plan.prune, plan.source_prompt, plan.keyframes) == ("joint", 0.3, "a ball", None)
    assert (edit.guidance, edit.steps, edit.negative_prompt, edit.injection_conv) == (4, 8, "a ball", 0)
    plan, edit = make_configs(edits.parse(["bundled"]), "")
    assert edit.guidance is None and edit.negative_prompt is None and plan.prune is None
    assert ModelProfile(**profile_changes(["guidance=4", "steps=8", "negative=source"])).steps == 8
    assert profile_changes(["coarse=0.5"]) == {"coarse": 0.5}


@pytest.mark.parametrize(
    ("change", "told"),
    [("nothing=1", "choose a field"), ("words=a", "choose a field"), ("agreements=2.5", "agreements is a whole number"),
     ("guidance=x", "guidance is a number"), ("coarse=", "coarse is a number"), ("negative=x", "choose one of empty")],
)  # fmt: skip
def test_a_profile_takes_what_its_fields_are(change: str, told: str) -> None:
    with pytest.raises(SystemExit, match=f"--profile {change}: {told}"):
        profile_changes([change])


def test_clips_have_the_models_own_size(capsys: pytest.CaptureFixture[str]) -> None:
    profile = ModelProfile(size=512)
    assert clip_size(None, profile) == clip_size(512, profile) == 512 and not capsys.readouterr().err
    assert clip_size(256, profile) == 256
    assert "clips of 256 pixels are smaller than the model's 512" in capsys.readouterr().err


def test_no_edit_that_is_measured_goes_on_from_one_before() -> None:
    """The engine keeps the last step of what nobody wrote, and the same edit again would begin there."""
    files = [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("scripts/*.py"), ROOT / "adaflow_core/selfcheck.py"]
    found = 0
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        forgotten = {
            id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr == "forget_state"
        }
        for node in nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("engine.edit"):
                found += 1
                assert id(node) in forgotten, f"{path}:{node.lineno}: engine.edit(...).forget_state()"
    assert found > 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a judge with random weights."""
    from scenes.captions import vocabulary
    from scenes.training import embedded
    from scenes.training.classifier import Judge, save_judge

    folder = tmp_path_factory.mktemp("benchmarks")
    torch.manual_seed(0)
    embedded.save(embedded.build(vocabulary(), size=SIZE), folder / "model")
    save_judge(Judge(), folder / "judge")
    return folder / "model", folder / "judge"


@pytest.mark.slow
def test_scenes_run_to_the_end(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, judge = folders
    edits.main([
        "scenes", "--clips", "1", "--frames", "3", "--steps", "2", "--model", str(model), "--judge", str(judge),
        "--size", str(SIZE), "--kinds", "colour", "--json", str(tmp_path / "scores.json"),
        "--sheet", str(tmp_path / "sheet.png"),
    ])  # fmt: skip
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["clips"]) == 1 and scores["machine"]["device"]
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert capsys.readouterr().out


def test_scores_of_a_model_are_written_where_no_folder_is(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, judge = folders
    monkeypatch.setattr(embedded_model, "psnr_by_style", lambda *_, **__: {})
    monkeypatch.setattr(embedded_model, "generate", lambda _, prompts, **__: torch.rand(len(prompts), 3, SIZE, SIZE))
    table, sheet = tmp_path / "new" / "scores.json", tmp_path / "other" / "sheet.png"
    embedded_model.main([
        "--model", str(model), "--judge", str(judge), "--device", "cpu", "--count", "2", "--json", str(table),
        "--sheet", str(sheet),
    ])  # fmt: skip
    assert json.loads(table.read_text())["settings"]["size"] == SIZE and sheet.stat().st_size > 1000


def test_the_engine_edits_at_full_size_under_the_pairs_own_prompt(
    pairs: dict[str, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps nothing in the user's cache."""
    seen: list[tuple[str, Path]] = []

    class Planned(Exception):
        pass

    def plan(engine: AdaFlow, source: Path, config: PlanConfig | None = None, **_: object) -> None:
        seen.append((config.source_prompt if config else "", engine.cache.root))
        raise Planned

    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(AdaFlow, "plan", plan)
    monkeypatch.setattr(full_size, "pairs", lambda *_: iter([pairs["colour"]]))
    with pytest.raises(Planned):
        full_size.main(["--engine"])
    [(prompt, cache)] = seen
    assert prompt == pairs["colour"].source_prompt and not cache.is_relative_to(tmp_path)


# --- what the shipped model reaches -----------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not in assets/")
@pytest.mark.parametrize("clip", ["ball", "car", "rocket"])
def test_bundled_edits_come_near_their_truth(clip: str, tmp_path: Path) -> None:
    entry = next(entry for entry in load_bundled() if Path(entry["file"]).stem == clip)
    pair = draw_bundled(entry | {"frames": 3})
    engine = AdaFlow(load_backbone("embedded", device="cpu"), Cache(tmp_path))
    plan = engine.plan(pair.source, PlanConfig(source_prompt=pair.source_prompt, keyframes=2), fps=12)
    edited = engine.edit(plan, pair.prompt).frames
    gain = psnr(edited, pair.truth, pair.region) - psnr(pair.source, pair.truth, pair.region)
    print(f"{clip}: {gain:+.1f} dB over the copy")
    assert gain > 4
    if not pair.region.all():
        assert psnr(edited, pair.truth, ~pair.region) > 20
