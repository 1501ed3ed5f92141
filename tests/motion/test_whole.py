"""The motion of a thing as a whole: all over its place, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaflow_core.motion.whole import move_as_one

HEIGHT, WIDTH, FACTOR = 96, 128, 8
Y, X = 2 * np.mgrid[: HEIGHT // 2, : WIDTH // 2].astype(np.float32)  # in pixels, of motion at half the size


def within(radius: float, x: float = 60, y: float = 40) -> np.ndarray:
    return (X - x) ** 2 + (Y - y) ** 2 < radius**2


def moving(thing: np.ndarray, pan: float) -> np.ndarray:
    """[2, 2, h, w, 2]: a disc that moves by `thing` [h, w, 2] on a ground that moves by `pan`."""
    flow = np.zeros((2, 2, *X.shape, 2), np.float32)
    flow[..., 0] = pan
    flow[:, :, within(20)] = thing[within(20)]
    return flow


def place(radius: float) -> np.ndarray:
    """[3, h, w] on the latents' grid, a little beside the disc."""
    small = within(radius, 62, 42).reshape(HEIGHT // FACTOR, FACTOR // 2, WIDTH // FACTOR, FACTOR // 2)
    return np.repeat(small.mean(axis=(1, 3))[None].astype(np.float32), 3, axis=0)


def as_one(flow: np.ndarray, where: np.ndarray, own: slice = slice(None)) -> np.ndarray:
    out = np.full(flow.shape, np.nan, np.float16)
    move_as_one(out, flow.astype(np.float16), where, torch.device("cpu"), own)
    return out.astype(np.float32)


@pytest.mark.parametrize("pan", [0.0, 1.0])
def test_a_thing_that_moves_and_grows_does_so_all_over_its_place(pan: float) -> None:
    thing = np.stack([3 + 0.05 * (X - 60), -2 + 0.05 * (Y - 40)], axis=-1)
    flow = moving(thing, pan)
    found = as_one(flow, place(32))
    assert np.abs(found - thing)[:, :, within(26)].max() < 0.1  # six pixels beyond its outline
    np.testing.assert_array_equal(found[:, :, ~within(52)], flow[:, :, ~within(52)])


def test_a_thing_that_stands_moves_with_the_ground() -> None:
    flow = moving(np.broadcast_to(np.float32([1.5, 0]), (*X.shape, 2)), 1.5)
    assert np.abs(as_one(flow, place(32)) - flow).max() < 0.05


def test_of_a_thing_that_turns_only_the_shift_is_taken() -> None:
    """What takes a ball's place does not roll."""
    turning = np.stack([4 - 0.1 * (Y - 40), 0.1 * (X - 60)], axis=-1)
    found = as_one(moving(turning, 0.0), place(32))[:, :, within(18)]
    assert np.abs(found - [4, 0]).max() < 1.0
    assert np.abs(turning[within(18)] - [4, 0]).max() > 1.5


def test_where_no_place_is_nothing_changes_and_each_does_its_part() -> None:
    flow = moving(np.broadcast_to(np.float32([3, 2]), (*X.shape, 2)), 0.0)
    np.testing.assert_array_equal(as_one(flow, np.zeros_like(place(32))), flow)
    part = as_one(flow, place(32), slice(1, 2))
    assert np.isnan(part[0]).all()
    np.testing.assert_allclose(part[1], as_one(flow, place(32))[1], atol=1e-3)
