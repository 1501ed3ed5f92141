"""The pure parts of the denoising loop."""

from __future__ import annotations

import torch

from adaflow_core.editor import significance


def test_changes_are_measured_against_the_largest_of_their_frame() -> None:
    change = torch.zeros(2, 4, 9, 9)
    change[..., :3] = 0.05
    change[..., 6:] = 1.0
    change[1] *= 0.1  # a faint edit is one as well
    found = significance(change, tolerance=0.1)
    assert found.shape == (2, 1, 9, 9)
    assert (found[..., :2] == 0).all() and (found[..., 7:] == 1).all()
    torch.testing.assert_close(found[0], found[1])
    assert (significance(torch.zeros(1, 4, 3, 3), tolerance=0.1) == 0).all()


def test_a_change_counts_for_its_neighbours_too() -> None:
    change = torch.zeros(1, 4, 9, 9)
    change[..., 5:, :] = 1.0
    change[..., 2, 4] = 0.6  # 0.2 over nine tokens: half way between the tolerance and three times that
    expected = torch.zeros(4, 9)
    expected[1:, 3:6] = 0.5
    torch.testing.assert_close(significance(change, tolerance=0.1)[0, 0, :4], expected, rtol=0, atol=1e-6)
