"""The source is shown where the edit left it alone, and only there."""

import torch

from adaflow_core.editing.finish.changes import FAINTEST, ramp, relative_change
from adaflow_core.editing.finish.preservation import OTHER, SAME, restore_detail


def test_nothing_changed_gives_the_source_back_and_a_new_picture_stays() -> None:
    dice = torch.Generator().manual_seed(0)
    source = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8, generator=dice)
    rebuilt = torch.full_like(source, 128)
    assert torch.equal(restore_detail(rebuilt, rebuilt, source, 1.0), source)
    assert torch.equal(restore_detail(rebuilt, rebuilt, source, 0.0), rebuilt)
    other = rebuilt + 60
    assert torch.equal(restore_detail(other, rebuilt, source, 1.0), other)
    half = restore_detail(rebuilt, rebuilt, source, 0.5).double()
    assert (half - (128 + source.double()) / 2).abs().max() <= 0.5


def test_an_edge_belongs_to_the_side_that_stays_but_for_a_pixel() -> None:
    """A pixel of the source's edge is a mixture with what is gone, and would be a rim."""
    source = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8)
    rebuilt = torch.full_like(source, 90)
    edited = rebuilt.clone()
    edited[:, :, 16:] = 200
    restored = restore_detail(edited, rebuilt, source, 1.0)
    assert (restored[:, :, :15] == 100).all() and (restored[:, :, 18:] == 200).all()


def test_a_thin_outline_of_what_is_gone_is_not_shown() -> None:
    """The autoencoder lost it, and no edit could have changed it."""
    source = torch.full((1, 32, 32, 3), 150, dtype=torch.uint8)
    source[:, :, 16:] = 250
    rebuilt = source.clone()
    edited = torch.full_like(source, 150)  # the thing to the right is gone
    source[:, :, 15] = 60
    source[:, :, 4] = 60  # and another line, away from it
    restored = restore_detail(edited, rebuilt, source, 1.0)
    assert (restored[:, :, 15] == 150).all() and (restored[:, :, 4] == 60).all()
    assert (restored[:, :, 18:] == 150).all()


def test_the_ramp_between_the_same_and_another_picture() -> None:
    for largest in (200.0, FAINTEST / 1000):  # the second: a change too faint to be measured by itself
        change = torch.full((1, 3, 40, 40), largest)
        scale = max(largest, FAINTEST)
        for column, part in enumerate((0.0, SAME, (SAME + OTHER) / 2)):
            change[..., 9 * column : 9 * column + 9] = part * scale
        shares = ramp(relative_change(change), SAME, OTHER)[0, 0, 20, [4, 13, 22, 36]]
        torch.testing.assert_close(shares, torch.tensor([0.0, 0.0, 0.5, 1.0 if largest > FAINTEST else 0.0]))
