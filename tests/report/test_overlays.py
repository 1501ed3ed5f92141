"""Pictures over frames: what is drawn where, from kept tokens to the place of an edit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adaflow_core.report.canvas import PLACE, Canvas, heat_colours
from adaflow_core.report.overlays import (
    KEYFRAMES_SHOWN,
    Ground,
    kept_masks,
    keyframe_strip,
    place_overlay,
    place_sentence,
    place_strip,
    place_view,
    region_view,
    sampled_masks,
    score_heatmap,
    score_view,
    tile,
    token_view,
)
from adaflow_core.types import Place, Segments
from helpers.pictures import lightness, near
from helpers.plans import COARSE, FINE, small_plan


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_share_of_darkened_cells_is_what_was_dropped(share: float) -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros(16 * 20, dtype=bool)
    mask[rng.permutation(mask.size)[: round(share * mask.size)]] = True
    mask = mask.reshape(16, 20)
    frame = np.full((16 * 8, 20 * 8, 3), (200, 120, 90), dtype=np.uint8)
    light = lightness(Ground.of(frame).with_kept(mask))
    cells = light.reshape(16, 8, 20, 8).mean(axis=(1, 3))
    darkened = cells < 0.8 * lightness(frame[:1, :1])
    assert np.array_equal(darkened, ~mask)


def test_kept_tokens_show_the_frame_itself_and_dropped_ones_are_hatched() -> None:
    frame = np.full((64, 64, 3), 180, dtype=np.uint8)
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 1] = True
    picture = Ground.of(frame).with_kept(mask)
    assert (picture[18:30, 18:30] == 180).all()  # inside its outline
    assert (picture[16, 16:32] == 255).all()  # the outline
    dropped = picture[40:56, 40:56, 0]
    assert len(np.unique(dropped)) == 2 and dropped.max() < 180  # the hatching, both parts dark


def test_overlay_takes_frames_that_the_grid_does_not_divide() -> None:
    frame = np.full((50, 70, 3), 200, dtype=np.uint8)
    mask = np.ones((3, 7), dtype=bool)
    mask[:, 3:] = False
    dark = lightness(Ground.of(frame).with_kept(mask)) < 150
    assert dark[:, 31:].mean() > 0.99 and not dark[:, :29].any()


@pytest.mark.parametrize("q", [0, 1, 2])
@pytest.mark.parametrize("grid", [FINE, COARSE])
def test_token_view_shows_every_other_keyframe_with_its_share(q: int, grid: tuple[int, int]) -> None:
    plan = small_plan()
    masks = kept_masks(plan, q, grid)
    views = token_view(plan, q, grid)
    others = [k for k in range(3) if k != q]
    assert masks[q].all() and len(views) == 2
    for k, (picture, caption) in zip(others, views, strict=True):
        assert caption == f"{masks[k].mean():.0%} kept · {plan.video.stamp(plan.layout.keyframes[k])}"
        assert picture.dtype == np.uint8 and min(picture.shape[:2]) >= 224
    assert len(score_view(plan, q, grid)) == 2


def test_a_sample_is_told_apart_from_what_was_chosen_by_score() -> None:
    plan = small_plan()
    slimming = plan.layout.slimming[FINE]  # type: ignore[index]
    plan = replace(
        plan, layout=replace(plan.layout, slimming={FINE: replace(slimming, num_sampled=6, sample_weight=2.0)})
    )
    sampled = sampled_masks(plan, 0, FINE)
    assert sampled.sum() == 6 and (kept_masks(plan, 0, FINE) | ~sampled).all()
    caption = token_view(plan, 0, FINE)[1][1]
    assert f"{sampled[2].mean():.0%} as a sample" in caption
    frame, mask = np.full((64, 64, 3), 180, np.uint8), np.zeros((4, 4), bool)
    mask[1, 1] = mask[2, 3] = True
    of_sample = np.zeros_like(mask)
    of_sample[2, 3] = True
    picture = Ground.of(frame).with_kept(mask, of_sample)
    assert (picture[16, 16:32] == 255).all() and (picture[18:30, 18:30] == 180).all()
    assert (picture[32:48, 48:64, 2] > picture[32:48, 48:64, 0] + 40).all(), "blue, and without an outline"


def test_without_slimming_nothing_of_the_others_is_kept() -> None:
    plan = small_plan(slimmed=False)
    assert [caption.split(" ")[0] for _, caption in token_view(plan, 1, FINE)] == ["0%", "0%"]
    assert score_view(plan, 1, FINE) == []


def test_score_heatmap_orders_cells_by_score_and_has_a_legend() -> None:
    frame = np.full((60, 120, 3), 128, dtype=np.uint8)
    scores = np.arange(8, dtype=np.float32).reshape(2, 4)
    picture = score_heatmap(frame, scores)
    assert picture.shape == (80, 120, 3)
    cells = lightness(picture[:60]).reshape(2, 30, 4, 30).mean(axis=(1, 3)).ravel()
    assert (np.diff(cells) > 0).all()
    bar = lightness(picture[64:65, 40:80])[0]
    assert (np.diff(bar) >= 0).all() and bar[-1] > bar[0]


def test_the_legend_of_a_heat_map_reads_on_a_dark_page_too() -> None:
    """Its numbers lie in the bar, light on its dark end and dark on its light one, and no strip of paper is around."""
    picture = score_heatmap(np.full((224, 224, 3), 128, np.uint8), np.arange(8, dtype=np.float32).reshape(2, 4))
    bar = picture[226:]
    heat = heat_colours(np.linspace(0, 1, 224))
    unwritten = np.abs(bar[[0, -1]].astype(float) - heat).max()
    assert unwritten < 8, "the bar is as wide as the picture"
    for part, lighter in ((slice(5, 25), True), (slice(-25, -5), False)):
        ink = lightness(bar[:, part])
        ground = lightness(heat[None, part])
        assert (ink - ground).max() > 180 if lighter else (ground - ink).max() > 140


def test_strip_holds_every_keyframe_in_rows() -> None:
    plan = small_plan()
    one, two = keyframe_strip(plan, 60), keyframe_strip(plan, 60, columns=2)
    assert two.shape[0] > one.shape[0] and two.shape[1] < one.shape[1]


def test_a_strip_of_thousands_shows_some_of_them_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, said, write = small_plan(), list[str](), Canvas.text
    monkeypatch.setattr(Canvas, "text", lambda *given: said.append(given[3]) or write(*given))
    frames = np.broadcast_to(plan.video.frames[:1], (1000, *plan.video.frames.shape[1:]))
    each = Segments(np.arange(1000), np.arange(1000), np.array([], int), 1000)
    strip = keyframe_strip(replace(plan, video=replace(plan.video, frames=frames), segments=each), 32)
    assert said[0] == f"{KEYFRAMES_SHOWN} of 1000 keyframes, evenly spread" and strip.nbytes < 10_000_000
    shown = [int(text.split(" ")[-1]) for text in said[1::2]]
    assert len(shown) == KEYFRAMES_SHOWN and (shown[0], shown[-1]) == (0, 999) and max(np.diff(shown)) == 5


def test_narrow_pictures_of_keyframes_keep_their_shape() -> None:
    plan = small_plan()
    plan = replace(plan, video=replace(plan.video, frames=np.full((20, 64, 36, 3), PLACE, np.uint8)))
    drawn = np.flatnonzero(near(keyframe_strip(plan, 64)[40:41], PLACE)[0])
    for k, columns in enumerate(np.split(drawn, np.flatnonzero(np.diff(drawn) > 1) + 1)):
        assert len(columns) == 36 and columns.mean() == pytest.approx(8 + 48 + k * 104, abs=1)


def test_captions_of_keyframes_do_not_run_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, widths, drawn = small_plan(start=1000), [], Canvas.text
    monkeypatch.setattr(Canvas, "text", lambda *given: widths.append(drawn(*given)) or widths[-1])
    sheet = keyframe_strip(plan, 64)
    assert len(widths) == 3 * len(plan.segments) and max(widths) <= 96 and sheet.ndim == 3


def test_a_tile_keeps_every_pixel() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    sheet = tile(list(pictures), columns=3, gap=2)
    assert sheet.shape == (2 * 4 + 2, 3 * 6 + 4, 3)
    assert np.array_equal(sheet[6:10, 8:14], pictures[4])
    assert np.array_equal(tile(pictures), tile(list(pictures)))
    assert tile([]).shape == (1, 1, 3), "a plan of one keyframe has no others to show"


def test_what_is_small_is_not_said_to_be_nothing() -> None:
    plan = small_plan()
    weights = np.zeros((20, 48, 64), np.uint8)
    weights[1:, 0, 0] = 255
    assert [caption.split(" · ")[0] for _, caption in region_view(plan, weights)] == ["0%", *["under 1%"] * 7]
    views = place_view(plan, Place(weights / np.float32(255), 1.0, False))
    assert {caption.split(" · ")[0] for _, caption in views} == {"under 1%"}


def left_half(frames: int = 20) -> np.ndarray:
    """A place [T, 4, 6]: the left half of every frame."""
    mask = np.zeros((frames, 4, 6), np.float32)
    mask[:, :, :3] = 1
    return mask


def test_the_place_is_tinted_and_outlined_and_the_rest_is_the_frame() -> None:
    frame = np.full((40, 60, 3), 120, dtype=np.uint8)
    picture = place_overlay(frame, left_half()[0])
    assert np.array_equal(picture[:, 36:], frame[:, 36:])
    assert np.array_equal(picture[5, 5], (frame[5, 5] * 0.55 + 0.45 * np.array(PLACE)).round())
    columns = picture[20].astype(int)
    assert near(columns[None], PLACE, 2)[0, 29] and (columns[30] == 255).all(), "the outline has two shades"


def test_the_place_is_shown_on_eight_keyframes_at_most() -> None:
    plan = small_plan()
    items = place_view(plan, Place(left_half(), 1.0, False))
    assert [caption for _, caption in items] == [f"50% · {plan.video.stamp(t)}" for t in (3, 10, 17)]
    assert all(min(picture.shape[:2]) >= 224 for picture, _ in items)
    many = replace(plan, segments=Segments(np.arange(20), np.arange(20), np.array([], int), 20))
    frames = [int(caption.split(" ")[-1]) for _, caption in place_view(many, Place(None, 0.0, False))]
    assert len(frames) == 8 and (frames[0], frames[-1]) == (0, 19) and frames == sorted(frames)
    assert place_strip(many, Place(None, 0.0, False)).shape[0] > place_strip(plan, Place(None, 0.0, False)).shape[0]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (Place(left_half() / 101, 1.0, False), "Changes here: under 1% of the picture; shape is kept."),
        (Place(left_half(), 1.0, False), "Changes here: 50% of the picture; shape is kept."),
        (Place(left_half(), 0.0, False), "Changes here: 50% of the picture; shape is free."),
        (Place(left_half(), 0.3, False), "Changes here: 50% of the picture; shape is kept for 30% of the steps."),
        (Place(left_half(), 1.0, True), "Changes here: 50% of the picture; surroundings change, the thing stays."),
        (Place(None, 0.0, False, "focus is 0"), "Changes here: the whole picture; focus is 0."),
    ],
)
def test_words_say_what_may_change(place: Place, sentence: str) -> None:
    assert place_sentence(place) == sentence
