"""Which changes of an edit count, by their size among those of their frame."""

from __future__ import annotations

import torch

from adaflow_core.editing.tolerance import significance


def test_changes_are_measured_against_what_is_usual_in_their_frame() -> None:
    change = torch.zeros(2, 4, 9, 9)
    change[..., :3] = 0.05
    change[..., 6:] = 1.0
    change[..., 3:6] = 0.8
    change[1] *= 0.1  # a faint edit is one as well
    found = significance(change, tolerance=0.1)
    assert found.shape == (2, 1, 9, 9)
    assert (found[..., :2] == 0).all() and (found[..., 7:] == 1).all()
    torch.testing.assert_close(found[0], found[1])
    assert (significance(torch.zeros(1, 4, 3, 3), tolerance=0.1) == 0).all()
    part = torch.full((1, 4, 9, 9), 0.01)  # most stays as it is: now a part of the largest is usual
    part[..., :4, :4] = 1.0
    found = significance(part, tolerance=0.1)
    assert (found[..., :3, :3] == 1).all() and (found[..., 5:, 5:] == 0).all()


def test_a_change_counts_for_its_neighbours_too() -> None:
    change = torch.zeros(1, 4, 12, 9)
    change[..., 4:, :] = 1.0
    change[..., 1, 4] = 0.6  # 0.2 over nine tokens: half way between the tolerance and three times that
    expected = torch.zeros(2, 9)
    expected[:, 3:6] = 0.5
    torch.testing.assert_close(significance(change, tolerance=0.1)[0, 0, 1:3], expected, rtol=0, atol=1e-6)
