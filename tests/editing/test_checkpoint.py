"""An edit that is stopped or killed goes on after its last finished step, and comes out the same to the bit."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing import latents
from adaflow_core.editing.checkpoint import Checkpoint, frames_digest, layout_digest
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.progress import Progress
from adaflow_core.storage import arrays as store
from adaflow_core.storage.cache import Cache
from adaflow_core.team.team import Team
from helpers.plans import FINE, small_plan

PROMPT = "a blue ball"
CONFIG = EditConfig(steps=5, inversion_steps=5, chunk=4, stride=1)
KILLS = int(os.environ.get("ADAFLOW_KILLS", "1"))


def test_a_checkpoint_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    T = 300  # more than are read at a time
    latents = torch.randn(T, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    checkpoint, found = Checkpoint(tmp_path / "edits" / "a.zip"), torch.zeros(T, 4, 2, 2)
    assert checkpoint.load(found) == 0
    checkpoint.save(1, latents)
    checkpoint.save(2, latents + 1)
    assert checkpoint.load(found) == 2
    torch.testing.assert_close(found, latents + 1, rtol=0, atol=0)
    assert checkpoint.load(torch.zeros(T + 1, 4, 2, 2)) == 0
    assert [file.name for file in checkpoint.path.parent.iterdir()] == ["a.zip"]
    whole = checkpoint.path.read_bytes()
    content = (latents + 1).numpy().tobytes()
    first, last = whole.index(content), whole.index(content) + len(content) - 1
    for damaged in (b"", whole[: len(whole) // 2], *(whole[:at] + b"\xff" + whole[at + 1 :] for at in (first, last))):
        checkpoint.path.write_bytes(damaged)
        assert checkpoint.load(found) == 0
    heads = [at for at in range(len(whole)) if not first <= at <= last]  # what zipfile itself goes by
    for at, value in product(heads, (0x00, 0x01, 0xFF)):
        checkpoint.path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        if checkpoint.load(found):  # dates and the like may be anything
            torch.testing.assert_close(found, latents + 1, rtol=0, atol=0)


def test_a_state_that_is_not_sound_is_not_kept(tmp_path: Path) -> None:
    def check() -> None:
        raise AdaFlowError("it is not finite")

    checkpoint = Checkpoint(tmp_path / "a.zip")
    with pytest.raises(AdaFlowError, match="not finite"):
        checkpoint.save(1, torch.zeros(2, 4, 2, 2), check)
        checkpoint.finish()
    assert not checkpoint.path.exists()


def test_an_edit_goes_on_where_its_state_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "edits").write_text("a file where a folder should be")
    checkpoint = Checkpoint(tmp_path / "edits" / "a.zip")
    checkpoint.save(1, torch.zeros(1, 4, 2, 2))
    assert checkpoint.problem


def test_the_state_of_a_long_video_does_not_fill_the_memory(tmp_path: Path) -> None:
    checkpoint, latents = Checkpoint(tmp_path / "a.zip"), torch.ones(2000, 4, 32, 32)  # 32 MB
    tracemalloc.start()
    checkpoint.save(1, latents)
    assert checkpoint.load(latents) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < latents.nbytes / 3


@pytest.fixture
def backbone(tiny_backbone: Callable[[str], Backbone]) -> Backbone:
    return tiny_backbone("sd1")


def stop_at(stage: str, done: int) -> tuple[Callable[[Progress], None], Callable[[], bool], list[Progress]]:
    """A progress callback and a stop signal that is set once `stage` has done so much; and what was reported."""
    seen: list[Progress] = []

    def stop() -> bool:
        return any(p.stage == stage and p.done >= done for p in seen)

    return seen.append, stop, seen


@pytest.mark.parametrize("resample", [False, True])
def test_a_stopped_edit_goes_on_after_its_last_step(
    backbone: Backbone, drawn_frames: np.ndarray, tmp_path: Path, resample: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A film that is larger than the cache, which all else leaves at once, goes on too.
    monkeypatch.setattr("adaflow_core.storage.cache._FRESH", 0.0)
    config = PlanConfig(keyframes=3, resample=resample)
    undisturbed = AdaFlow(backbone, Cache(tmp_path / "a"))
    expected = undisturbed.edit(undisturbed.plan(drawn_frames, config), PROMPT, CONFIG)
    assert expected.report["resumed_at_step"] == 0

    T = len(drawn_frames)
    progress, stop, _ = stop_at("edit", 3 * T + 1)  # within the third step: after the second frames agree
    with pytest.raises(Stopped):
        first = AdaFlow(backbone, Cache(tmp_path / "b", limit_bytes=1))
        first.edit(first.plan(drawn_frames, config), PROMPT, CONFIG, progress=progress, stop=stop)
    again = AdaFlow(backbone, Cache(tmp_path / "b", limit_bytes=1))
    plan = again.plan(drawn_frames, config)
    # Another prompt, another seed or other kept tokens are another edit.
    if not resample:
        for other, changed in (("a red ball", CONFIG), (PROMPT, replace(CONFIG, seed=9))):
            assert again.edit(plan, other, changed).report["resumed_at_step"] == 0
        other_plan = again.plan(drawn_frames, PlanConfig(keyframes=4))
        assert again.edit(other_plan, PROMPT, CONFIG).report["resumed_at_step"] == 0
    # Nor does it go on where another process of the team has found another state.
    with monkeypatch.context() as patched:
        patched.setattr(Team, "gather", lambda self, own, count, rows=1: torch.cat([own, 0 * own]))
        progress, stop, seen_anew = stop_at("edit", 1)
        with pytest.raises(Stopped):
            again.edit(plan, PROMPT, CONFIG, progress=progress, stop=stop)
        assert min(p.done for p in seen_anew if p.stage == "edit" and p.done) <= T
    seen: list[Progress] = []
    result = again.edit(plan, PROMPT, CONFIG, progress=seen.append)
    assert result.report["resumed_at_step"] == 2
    assert min(p.done for p in seen if p.stage == "edit" and p.done) == 3 * T
    np.testing.assert_array_equal(result.frames, expected.frames)
    # What was made may have been lost since, on a full disk say: the same edit again has nothing left to denoise.
    lost = again.edit(plan, PROMPT, CONFIG)
    assert lost.report["resumed_at_step"] == CONFIG.steps
    np.testing.assert_array_equal(lost.frames, expected.frames)
    lost.save(tmp_path / "film.mp4")
    assert lost.state is not None and not lost.state.exists()


@pytest.mark.parametrize("kind", ["draft", "timeline"])
def test_what_is_kept_itself_leaves_no_state_once_it_is_there(
    kind: str, backbone: Backbone, drawn_frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path))
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))

    def report() -> dict[str, Any]:
        if kind == "draft":
            return engine.draft(plan, PROMPT, CONFIG).report
        return engine.edit_timeline(plan, Timeline((PromptRange(0, 6, PROMPT),)), CONFIG).report["stretches"][0]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(AdaFlowError, match="free some space"):
        patch.setattr(np, "save", full)
        report()
    assert report()["resumed_at_step"] == CONFIG.steps
    assert not list((tmp_path / "edits").iterdir())


def test_a_long_edit_in_files_is_the_same_edit(
    backbone: Backbone, drawn_frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path / "a"))
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    expected = AdaFlow(backbone, Cache(tmp_path / "b")).edit(plan, PROMPT, CONFIG)
    monkeypatch.setattr(latents, "LATENTS_ON_DEVICE", 0)
    monkeypatch.setattr(store, "SCRATCH_IN_MEMORY", 0)
    monkeypatch.setattr(latents, "BLOCK", 2)
    progress, stop, _ = stop_at("edit", 3 * len(drawn_frames) + 1)
    with pytest.raises(Stopped):
        engine.edit(plan, PROMPT, CONFIG, progress=progress, stop=stop)
    result = engine.edit(plan, PROMPT, CONFIG)
    assert result.report["resumed_at_step"] == 2 and isinstance(result.frames, np.memmap)
    np.testing.assert_array_equal(result.frames, expected.frames)


def test_a_stopped_inversion_keeps_the_frames_it_finished(
    backbone: Backbone, drawn_frames: np.ndarray, tmp_path: Path
) -> None:
    undisturbed = AdaFlow(backbone, Cache(tmp_path / "a"))
    expected = undisturbed.edit(undisturbed.plan(drawn_frames, PlanConfig(keyframes=3)), PROMPT, CONFIG)
    progress, stop, _ = stop_at("invert", 2 * 4 * 5 + 1)  # within the third chunk of four frames
    engine = AdaFlow(backbone, Cache(tmp_path / "b"))
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    with pytest.raises(Stopped):
        engine.edit(plan, PROMPT, CONFIG, progress=progress, stop=stop)
    seen: list[Progress] = []
    result = engine.edit(plan, PROMPT, CONFIG, progress=seen.append)
    assert next(p.done for p in seen if p.stage == "invert" and p.done) == 2 * 4 * 5
    np.testing.assert_array_equal(result.frames, expected.frames)
    (entry,) = (tmp_path / "b" / "inversion").iterdir()
    assert not entry.name.startswith(".")


Run = Callable[[str], None]


@pytest.fixture
def run(tiny_folder: Callable[[str], Path], drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Makes the same edit into NAME.mp4 and NAME.json of `tmp_path`, with a cache of its own, by the command."""
    command = ["edit", str(drawn_clip), "--prompt", PROMPT, "--model", str(tiny_folder("sd1")), "--device", "cpu"]
    command += ["--keyframes", "3", "--steps", "10", "--size", "64x64"]

    def run(name: str) -> None:
        torch.set_num_threads(1)  # a fork has no more, and another number of threads sums in another order
        monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / f"cache-{name}"))
        files = ["--out", str(tmp_path / f"{name}.mp4"), "--report", str(tmp_path / f"{name}.json")]
        assert main([*command, *files]) == 0

    return run


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment_the_same_command_ends_in_the_same_video(run: Run, tmp_path: Path, number: int) -> None:
    """`ADAFLOW_KILLS` says how often. The process is a fork: a new one would spend most of its time on imports."""
    run("warm")
    began = time.monotonic()
    run("undisturbed")
    usual = time.monotonic() - began
    process = multiprocessing.get_context("fork").Process(target=run, args=("killed",))
    process.start()
    if number == 0:  # once there is a state to go on from
        while process.is_alive() and not list((tmp_path / "cache-killed" / "edits").glob("*.zip")):
            time.sleep(0.005)
    else:
        process.join(random.Random(number).uniform(0.1, 0.98) * usual)
    process.kill()
    process.join()
    print("killed" if process.exitcode else "it was faster")
    run("killed")
    reports = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("undisturbed", "killed")]
    print("resumed at step", reports[1]["resumed_at_step"])
    assert number > 0 or reports[1]["resumed_at_step"] > 0
    assert reports[0]["frames_digest"] == reports[1]["frames_digest"]
    assert (tmp_path / "killed.mp4").read_bytes() == (tmp_path / "undisturbed.mp4").read_bytes()


def test_the_digest_of_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 4, 8, 3), dtype=np.uint8)
    changed = frames.copy()
    changed[4, 2, 3, 1] ^= 1
    found = [frames_digest(x) for x in (frames, frames[::1].copy(), np.asfortranarray(frames), changed, frames[::-1])]
    assert found[0] == found[1] == found[2]
    assert len({found[0], found[3], found[4]}) == 3


def test_the_digest_of_a_layout() -> None:
    """All that shapes an edit is in it; scores are not."""
    layout = small_plan().layout
    assert layout.slimming is not None
    kept, taken = layout.slimming[FINE], layout.correspondence

    def other(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[-1] += 1
        return array

    def slimmed(**values: Any) -> dict[Any, Any]:
        return {**(layout.slimming or {}), FINE: replace(kept, **values)}

    others = [
        replace(layout, keyframes=other(layout.keyframes)),
        replace(layout, slimming=None),
        replace(layout, slimming=slimmed(kept=other(kept.kept))),
        replace(layout, slimming=slimmed(num_sampled=1)),
        replace(layout, slimming=slimmed(sample_weight=1.5)),
        replace(layout, correspondence=replace(taken, slots=other(taken.slots))),
        replace(layout, correspondence=replace(taken, weights=taken.weights | {FINE: taken.weights[FINE] / 2})),
        replace(layout, correspondence=replace(taken, index=taken.index | {FINE: other(taken.index[FINE])})),
    ]
    same = [small_plan().layout, replace(layout, slimming=slimmed(scores=other(kept.scores)))]
    assert {layout_digest(one) for one in same} == {layout_digest(layout)}
    assert len({layout_digest(one) for one in (layout, *others)}) == 1 + len(others)
