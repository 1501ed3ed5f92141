"""A plan as files: what is written for a long one, and what becomes of those of an earlier one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaflow_core.errors import Stopped
from adaflow_core.progress import Monitor
from adaflow_core.report import overlays
from adaflow_core.report.canvas import PAPER, SAMPLED, Canvas, at_least, at_most
from adaflow_core.report.export import plan_report, save_plan
from adaflow_core.report.overlays import kept_masks, sampled_masks
from adaflow_core.types import Place, Plan
from helpers.plans import COARSE, FINE, small_plan


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def with_keyframes(plan: Plan, keyframes: list[int]) -> Plan:
    chosen = np.array(keyframes)
    return replace(
        plan,
        segments=replace(plan.segments, keyframes=chosen),
        layout=replace(plan.layout, keyframes=chosen),
    )


def test_each_picture_is_saved_before_the_next_is_drawn(tmp_path: Path) -> None:
    said = list[int]()
    with pytest.raises(Stopped):
        save_plan(small_plan(), tmp_path, monitor=Monitor(lambda p: said.append(p.done), lambda: len(said) > 4))
    assert names(tmp_path) == {"keyframes.png", "timeline.png", "time_slice.png", "tokens_00003.png"}


def test_the_pictures_of_a_sheet_are_small(tmp_path: Path) -> None:
    plan = small_plan()
    large = replace(plan.video, frames=np.repeat(np.repeat(plan.video.frames, 10, axis=1), 10, axis=2))  # 640x480
    save_plan(replace(plan, video=large), tmp_path, monitor=Monitor())
    with Image.open(tmp_path / "tokens_00010.png") as sheet:
        assert sheet.size == (2 * 341 + 4, 28 + 256 + 34)  # a title, pictures, and two lines under each


def naive_overlay(frame: np.ndarray, mask: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """A frame under what is kept of it, every pixel by itself."""
    (height, width), (h, w) = frame.shape[:2], mask.shape
    out = np.empty_like(frame)

    def outlined(y: int, x: int) -> bool:
        cell = y * h // height, x * w // width
        return bool(mask[cell] and not sampled[cell])

    for y, x in np.ndindex(height, width):
        pixel, cell = frame[y, x].astype(float), (y * h // height, x * w // width)
        value = pixel
        if not mask[cell]:
            value = 0.42 * (0.8 * (pixel @ (0.299, 0.587, 0.114)) + 0.2 * pixel)
            value = 0.6 * value + 40 if (y + x) % 8 == 0 else value
        if sampled[cell]:
            value = 0.4 * pixel + 0.6 * np.array(SAMPLED)
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        edge = any(0 <= v < height and 0 <= u < width and not outlined(v, u) for v, u in around)
        out[y, x] = PAPER if outlined(y, x) and edge else np.round(value)
    return out


def test_each_keyframe_is_made_ready_once_for_the_sheets_of_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaflow_core.report.export._SHEET_SIDE", 48)
    plan, made, ready = small_plan(), list[tuple[int, ...]](), overlays.Ground.of
    said, write = list[str](), Canvas.text
    monkeypatch.setattr(Canvas, "text", lambda *given: said.append(given[3]) or write(*given))
    monkeypatch.setattr(overlays.Ground, "of", lambda frame: made.append(frame.shape) or ready(frame))
    assert plan.layout.slimming is not None
    some = {grid: replace(each, num_sampled=6, sample_weight=2.0) for grid, each in plan.layout.slimming.items()}
    plan = replace(plan, layout=replace(plan.layout, slimming=some))
    save_plan(plan, tmp_path, monitor=Monitor())
    assert made == [(48, 64, 3)] * 3
    frames = [at_most(at_least(plan.video.frames[frame], 224), 48) for frame in (3, 10, 17)]
    for q, frame in enumerate((3, 10, 17)):
        with Image.open(tmp_path / f"tokens_{frame:05d}.png") as sheet:
            found = np.asarray(sheet)
        masks, sampled = kept_masks(plan, q, FINE), sampled_masks(plan, q, FINE)
        pictures = [naive_overlay(frames[k], masks[k], sampled[k]) for k in range(3) if k != q]
        assert np.array_equal(found[28:76, :132], overlays.tile(pictures))
        title = said.index(f"What the keyframe at {plan.video.stamp(frame)} keeps of the others")
        captions = [text.split(" · ") for _, text in overlays.token_view(plan, q, FINE)]
        assert said[title - 4 : title] == [*captions[0], *captions[1]]


def test_programs_find_the_files_frames_and_what_is_a_sample(tmp_path: Path) -> None:
    plan = small_plan(start=100)
    assert plan.layout.slimming is not None
    some = {grid: replace(each, num_sampled=6, sample_weight=2.0) for grid, each in plan.layout.slimming.items()}
    numbers, times = (*range(100, 110), *range(120, 130)), tuple(t / 10 for t in range(100, 121))
    video = replace(plan.video, numbers=numbers, times=times)
    save_plan(
        replace(plan, video=video, layout=replace(plan.layout, slimming=some)), tmp_path / "holes", monitor=Monitor()
    )
    report = json.loads((tmp_path / "holes" / "plan.json").read_text(encoding="utf-8"))
    assert report["first_frame"] == 100 and report["source_digest"] == "digest"
    assert report["frame_numbers"] == list(numbers) and report["times"] == list(times)
    arrays = np.load(tmp_path / "holes" / "plan.npz")
    for grid, each in some.items():
        sampled = arrays[f"sampled_{grid}"]
        assert sampled.shape == arrays[f"mask_{grid}"].shape and not (sampled & ~arrays[f"mask_{grid}"]).any()
        assert all(set(np.flatnonzero(row)) == set(kept[-6:]) for row, kept in zip(sampled, each.kept, strict=True))
        assert arrays[f"sample_weight_{grid}"] == 2.0
    even = plan_report(plan)
    assert even["times"] is None and even["frame_numbers"] is None


def test_pictures_of_an_earlier_plan_do_not_stay_beside_another(tmp_path: Path) -> None:
    plan = small_plan()
    (tmp_path / "place.png").write_bytes(b"of another program, as there is no plan")
    save_plan(plan, tmp_path, monitor=Monitor())
    assert (tmp_path / "place.png").read_bytes().startswith(b"of another")
    save_plan(plan, tmp_path, Place(np.ones((20, 4, 6), np.float32), 1.0, False, ""), monitor=Monitor())
    (tmp_path / "tokens_mine.png").touch()
    save_plan(with_keyframes(plan, [2, 10, 17]), tmp_path, monitor=Monitor())
    assert names(tmp_path) == {
        "keyframes.png", "timeline.png", "time_slice.png", "tokens_mine.png",
        "tokens_00002.png", "tokens_00010.png", "tokens_00017.png",
    }  # fmt: skip


def test_what_is_kept_of_one_keyframe_is_its_part_of_the_mask() -> None:
    plan = small_plan()
    assert plan.layout.slimming is not None
    for grid in (FINE, COARSE):
        slimming = plan.layout.slimming[grid]
        naive = np.zeros((3, 3 * grid.n), bool)
        np.put_along_axis(naive, slimming.kept.astype(np.int64), True, axis=1)
        naive = naive.reshape(3, 3, grid.n)
        assert np.array_equal(slimming.mask, naive)
        assert all(np.array_equal(slimming.mask_of(q), naive[q]) for q in range(3))
        assert np.allclose(plan_report(plan)["kept_share"][str(grid)], naive.mean(axis=-1), atol=1e-4)
