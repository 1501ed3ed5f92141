"""The pure parts of the denoising loop."""

from __future__ import annotations

import torch

from adaflow_core.editor import significance


def test_small_changes_count_for_nothing_and_large_ones_in_full() -> None:
    change = torch.zeros(1, 4, 9, 9)
    change[..., :3] = 0.05
    change[..., 6:] = 1.0
    found = significance(change, tolerance=0.1)
    assert found.shape == (1, 1, 9, 9)
    assert (found[..., :2] == 0).all() and (found[..., 7:] == 1).all()
    # A change of one token is spread over its neighbours: measured by their root mean square.
    single = torch.zeros(1, 4, 5, 5)
    single[..., 2, 2] = 0.6  # 0.2 over nine tokens
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 0.5
    torch.testing.assert_close(significance(single, tolerance=0.1)[0, 0], expected, rtol=0, atol=1e-6)
