"""Frames made of the edited ones around them: which can be, what they are made of, and what stays the source."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.motion import carrying
from adaflow_core.motion import flow as motion_flow
from adaflow_core.motion.carrying import about_to_edit, carry_between, frames_to_edit, interpolated, spread
from adaflow_core.motion.flow import FlowBetween, flow_between, flow_between_chosen, trusted
from adaflow_core.progress import Monitor

CPU, NONE, SIZE = torch.device("cpu"), np.empty(0, np.int64), 64


def texture(seed: int) -> np.ndarray:
    """[SIZE, 4 * SIZE, 3] uint8, smooth enough to be followed."""
    noise = torch.rand(1, 3, SIZE // 4, SIZE, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, (SIZE, 4 * SIZE), mode="bicubic", align_corners=False)
    return (large[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()


def panned(steps: list[int], seed: int = 0) -> np.ndarray:
    """[T, SIZE, SIZE, 3]: a view that moves by so many pixels from frame to frame."""
    starts = np.cumsum([0, *steps])
    return np.stack([texture(seed)[:, x : x + SIZE] for x in starts])


def motion(frames: np.ndarray) -> np.ndarray:
    return np.stack([flow_between(a, b) for a, b in pairwise(frames)]).astype(np.float16)


def carried(edited: np.ndarray, frames: np.ndarray, chosen: list[int]) -> np.ndarray:
    """What is made of the `chosen` frames of an edit; the others are not looked at."""
    out = np.zeros_like(edited)
    out[chosen] = edited[chosen]
    carry_between(out, frames, motion(frames), np.array(chosen), CPU, Monitor())
    return out


def test_frames_lie_at_even_distances_between_those_that_are_needed() -> None:
    assert spread(13, NONE, NONE, 4).tolist() == [0, 4, 8, 12]
    assert spread(12, NONE, np.array([5]), 4).tolist() == [0, 2, 5, 8, 11]  # 2.5 goes to the even one
    assert spread(9, np.array([3]), NONE, 4).tolist() == [0, 2, 3, 6, 8]  # both sides of a cut
    assert spread(1, NONE, NONE, 4).tolist() == [0] and spread(5, NONE, NONE, 1).tolist() == [0, 1, 2, 3, 4]
    gaps = np.diff(spread(1000, np.array([333, 700]), np.array([10, 500, 501]), 7))
    assert gaps.min() >= 1 and gaps.max() == 7


def test_the_way_to_a_frame_far_off_is_that_of_its_steps() -> None:
    flow = motion(panned([2, 2, 2, 2]))
    there, trust = FlowBetween(flow, 0, 4, (SIZE, SIZE), CPU)(np.array([0, 4, 2]), np.array([4, 1, 2]))
    inner = there[:, :, 12:-12, 12:-12].mean(dim=(2, 3))
    torch.testing.assert_close(inner, torch.tensor([[-8.0, 0], [6.0, 0], [0, 0]]), atol=0.5, rtol=0)
    assert trust[2].min() == 1 and trust[0, 0, :, 12:].mean() > 0.9 > 0.1 > trust[0, 0, :, :5].mean()


def test_the_motion_of_a_film_of_fewer_frames() -> None:
    frames = panned([2, 1, 3, 2, 1])
    out = np.zeros((2, 2, SIZE // 2, SIZE // 2, 2), np.float16)
    for own in (slice(0, 1), slice(1, 2)):  # as two processes do
        flow_between_chosen(out, motion(frames), np.array([0, 2, 5]), (SIZE, SIZE), CPU, Monitor(), own)
    inner = out[:, :, 8:-8, 8:-8, 0].astype(np.float32).mean(axis=(2, 3))
    np.testing.assert_allclose(inner, [[-3, 3], [-6, 6]], atol=0.5)


def test_what_the_edit_leaves_alone_stays_the_source_to_the_bit() -> None:
    frames = panned([3, 2, 3, 2])
    edited = frames.copy()
    edited[:, :20, :20] = 255 - edited[:, :20, :20]  # in a corner; the motion carries it as far as 10 pixels
    made = carried(edited, frames, [0, 4])
    assert np.array_equal(made[[0, 4]], edited[[0, 4]])
    assert np.array_equal(made[:, 36:, 36:], frames[:, 36:, 36:])
    assert not np.array_equal(made[2, :10, 2:10], frames[2, :10, 2:10])


def test_a_change_moves_along() -> None:
    steps = [2] * 8
    frames = panned(steps)
    changed = np.clip(frames.astype(int) + (panned(steps, seed=5).astype(int) - 128) // 2, 0, 255).astype(np.uint8)
    made = carried(changed, frames, [0, 4, 8])
    between = [1, 2, 3, 5, 6, 7]
    missed = np.abs(made[between, :, 10:-10].astype(int) - changed[between, :, 10:-10]).mean()
    assert missed < 3 < 20 < np.abs(frames[between].astype(int) - changed[between]).mean()


def test_frames_beyond_an_end_are_made_of_the_one_there() -> None:
    frames = panned([2] * 8)
    changed = np.clip(frames.astype(int) + (panned([2] * 8, seed=5).astype(int) - 128) // 2, 0, 255).astype(np.uint8)
    made = carried(changed, frames, [2, 6])
    for t, reach in ((0, 4), (1, 2), (7, 2), (8, 4)):
        inner = np.s_[:, 10 + reach : -10 - reach]
        missed, before = (np.abs(x.astype(int) - changed[t])[inner].mean() for x in (made[t], frames[t]))
        assert missed < 4 < 20 < before
    alone = carried(changed, frames, [4])
    assert np.abs(alone[3][:, 12:-12].astype(int) - changed[3][:, 12:-12]).mean() < 4


def test_frames_between_do_not_flicker() -> None:
    frames = panned([0] * 8)
    noise = np.random.default_rng(0).integers(-20, 20, (9, 1, 1, 1))
    edited = np.clip(frames.astype(int) + noise, 0, 255).astype(np.uint8)
    made = carried(edited, frames, [0, 4, 8]).astype(int)
    jumps = [np.abs(np.diff(film.astype(int).mean(axis=(1, 2, 3)))).max() for film in (edited, made)]
    assert jumps[1] < 0.6 * jumps[0]


def test_where_a_thing_is_new_its_picture_is_carried() -> None:
    frames = np.full((5, SIZE, SIZE, 3), 100, np.uint8)
    frames[:, 20:40, 20:40] = 200  # what was there has an outline
    edited = frames.copy()
    edited[:, 16:44, 16:44] = 30
    renewed = np.zeros((2, SIZE // 8, SIZE // 8), np.float32)
    renewed[:, 1:6, 1:6] = 1
    out = np.zeros_like(frames)
    out[[0, 4]] = edited[[0, 4]]
    carry_between(out, frames, motion(frames), np.array([0, 4]), CPU, Monitor(), renewed)
    assert np.array_equal(out, edited)


def test_more_frames_are_edited_where_the_source_cannot_be_carried() -> None:
    calm = panned([1] * 16)
    flow = motion(calm)
    assert frames_to_edit(calm, flow, NONE, NONE, 8, CPU, Monitor()).tolist() == [0, 8, 16]
    flashing = calm.copy()
    flashing[11] = 255 - flashing[11]
    chosen = frames_to_edit(flashing, motion(flashing), NONE, NONE, 8, CPU, Monitor()).tolist()
    assert {10, 11, 12} <= set(chosen) and chosen[:2] == [0, 8]
    assert not {1, 2, 3, 4, 5, 6, 7} & set(chosen)


def test_what_misses_a_little_is_not_carried_far() -> None:
    calm = panned([1] * 16)
    calm[11, 20:28, 20:28] = 255 - calm[11, 20:28, 20:28]  # a little of it
    assert frames_to_edit(calm, motion(calm), NONE, NONE, 8, CPU, Monitor()).tolist() == [0, 8, 12, 16]
    assert len(about_to_edit(17, NONE, NONE, 8)) == 4 and about_to_edit(17, NONE, NONE, 4).tolist() == [0, 4, 8, 12, 16]


def test_each_process_makes_its_own_part() -> None:
    frames = panned([2] * 9)
    edited, flow, chosen = 255 - frames, motion(frames), np.array([0, 5, 9])
    whole, parts = np.zeros_like(frames), np.zeros_like(frames)
    for out, shares in ((whole, [slice(None)]), (parts, [slice(0, 4), slice(4, 10)])):
        out[chosen] = edited[chosen]
        for own in shares:
            carry_between(out, frames, flow, chosen, CPU, Monitor(), own=own)
    assert np.array_equal(whole, parts) and whole.all(axis=-1).any()


def test_places_between_are_interpolated() -> None:
    values = np.array([[0.0], [1.0], [0.0]], np.float32)
    np.testing.assert_allclose(interpolated(values, np.array([0, 2, 6]), 7)[:, 0], [0, 0.5, 1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(interpolated(values[1:], np.array([1, 3]), 5)[:, 0], [1, 1, 0.5, 0, 0])


@pytest.mark.parametrize("shape", [(1, 2, 9, 13), (3, 2, 64, 64)])
def test_edges_of_what_moves_are_not_trusted(shape: tuple[int, ...]) -> None:
    F, _, H, W = shape
    there = torch.zeros(shape)
    there[..., W // 2 :] = 2.0
    grid = torch.stack(torch.meshgrid(torch.arange(W), torch.arange(H), indexing="xy")).float()
    found = trusted(there, -there, grid)[:, 0]
    assert found.shape == (F, H, W) and not found[..., W // 2 - 2 : W // 2 + 2].any()
    assert found[..., : W // 2 - 2].all()


def test_blocks_are_as_large_as_the_motion_between_them_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = panned([1] * 40)
    flow, chosen = motion(frames), np.arange(0, 41, 5)
    expected = carried(255 - frames, frames, chosen.tolist())
    spans: list[int] = []

    def spy(flow: np.ndarray, first: int, last: int, *rest: Any) -> FlowBetween:
        spans.append(last - first)
        return FlowBetween(flow, first, last, *rest)

    monkeypatch.setattr(carrying, "FlowBetween", spy)
    for pixels, longest, blocks in ((12 * SIZE**2, 11, 4), (SIZE**2, 5, 8)):  # less than a gap: a gap at a time
        monkeypatch.setattr(motion_flow, "PIXELS", (pixels, pixels))
        spans.clear()
        out = np.zeros_like(frames)
        out[chosen] = 255 - frames[chosen]
        carry_between(out, frames, flow, chosen, CPU, Monitor())
        assert np.array_equal(out, expected) and max(spans) <= longest and len(spans) == blocks
