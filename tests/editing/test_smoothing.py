"""An edit, smoothed along the source's motion: what stays, what goes, and where it begins anew."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adaflow_core.editing.finish.smoothing import smooth_edit
from adaflow_core.motion import flow
from adaflow_core.motion.flow import pixel_grid, source_flow, warp
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.video.types import Video

SIZE, SHIFT = 64, 3


def texture(seed: int) -> np.ndarray:
    """[2 * SIZE, 2 * SIZE, 3] uint8, smooth enough to be followed."""
    noise = torch.rand(1, 3, SIZE // 4, SIZE // 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, (2 * SIZE, 2 * SIZE), mode="bicubic", align_corners=False)
    return (large[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()


def panned(frames: int, cut: int | None = None) -> Video:
    """A view that moves SHIFT pixels a frame to the right over a texture; from `cut` on over another."""
    views = [texture(0 if cut is None or t < cut else 1)[:SIZE, SHIFT * t : SHIFT * t + SIZE] for t in range(frames)]
    return Video(np.stack(views), Fraction(24), f"panned-{frames}-{cut}")


def smoothed(
    changes: Tensor,
    video: Video,
    cache: Path,
    strength: float = 0.95,
    cuts: tuple[int, ...] = (),
    part: slice = slice(None),
    motion: np.ndarray | None = None,  # None: as it is found
    fits: float | None = None,
) -> Tensor:
    """The changes [T, 3, H, W] of the video that are left of these."""
    out = torch.full_like(changes, torch.nan)
    motion = source_flow(video, Cache(cache), Monitor()) if motion is None else motion
    source = torch.from_numpy(np.asarray(video.frames)).permute(0, 3, 1, 2).float()

    def write(frames: np.ndarray, smooth: Tensor) -> None:
        out[frames] = smooth - source[frames]

    def pictures(frames: np.ndarray) -> tuple[Tensor, Tensor]:
        return source[frames] + changes[frames], source[frames]

    smooth_edit(pictures, motion, strength, np.array(cuts, np.int64), write, Monitor(), part=part, fits=fits)
    return out


def test_a_small_frames_motion_is_found_at_its_own_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    def fine(seed: int) -> np.ndarray:
        noise = torch.rand(1, 3, 42, 42, generator=torch.Generator().manual_seed(seed))
        large = torch.nn.functional.interpolate(noise, (256, 256), mode="bicubic", align_corners=False)
        return (large[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()

    ground, thing = fine(0)[:128, :128], fine(1)
    y, x = np.mgrid[:128, :128]

    def disc(t: int) -> np.ndarray:  # [H, W] bool
        return (y - 64) ** 2 + (x - 50 - SHIFT * t) ** 2 < 20**2

    frames = [np.where(disc(t)[..., None], np.roll(thing, SHIFT * t, axis=1)[:128, :128], ground) for t in (0, 1)]
    true = np.where(disc(0)[::2, ::2], SHIFT, 0)

    def error() -> float:  # pixels, most of it along the outline
        found = flow.flow_between(*frames)[0]
        return float(np.hypot(found[..., 0] - true, found[..., 1]).mean())

    own = error()
    monkeypatch.setattr(flow, "WHOLE", 0)
    assert own < 0.8 * error()


def test_the_flow_is_the_motion(tmp_path: Path) -> None:
    found = source_flow(panned(4), Cache(tmp_path), Monitor()).astype(np.float32)
    assert found.shape == (3, 2, SIZE // 2, SIZE // 2, 2)
    inner = found[:, :, 6:-6, 6:-6]
    assert np.abs(inner[:, 0, ..., 0] + SHIFT).mean() < 0.3 and np.abs(inner[:, 1, ..., 0] - SHIFT).mean() < 0.3
    assert np.abs(inner[..., 1]).mean() < 0.3


def test_a_warp_looks_up_where_the_flow_points() -> None:
    picture = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(2, 5, 7)
    flow[0], flow[1] = 1, 2
    found = warp(picture[None], flow[None], pixel_grid(5, 7, torch.device("cpu")))[0]
    torch.testing.assert_close(found[:, :3, :6], picture[:, 2:, 1:])


def test_flicker_goes_and_a_change_that_moves_along_stays(tmp_path: Path) -> None:
    T, video = 12, panned(12)
    pattern = torch.from_numpy(texture(5).astype(np.float32)).permute(2, 0, 1) - 128
    steady = torch.stack([pattern[:, :SIZE, SHIFT * t : SHIFT * t + SIZE] for t in range(T)])
    noise = 10 * torch.randn(T, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    found = smoothed(steady + noise, video, tmp_path)
    inner = (..., slice(8, -8), slice(8, -8))
    before, after = noise.std(dim=0).mean(), (found - steady)[inner].std(dim=0).mean()
    assert after < 0.45 * before  # a half of the picture comes into sight within these frames
    kept = smoothed(steady, video, tmp_path)
    assert (kept - steady)[inner].abs().mean() < 0.05 * steady.abs().mean()


def test_what_each_frame_draws_elsewhere_is_not_shown_twice(tmp_path: Path) -> None:
    def wanders(t: int) -> tuple[int, int]:
        return 12 + 20 * (t % 3), 12 + 20 * (t // 3)

    edited, within = disc(8, 8, wanders, 10), disc(8, 5, wanders, 10)[..., 0] == 10
    source = disc(8, 0, lambda _t: (0, 0), 110)  # a plain sky that stands still
    changes = torch.from_numpy(edited.astype(np.float32) - source).permute(0, 3, 1, 2)
    still = np.zeros((7, 2, SIZE // 2, SIZE // 2, 2), np.float16)
    found = smoothed(changes, Video(source, Fraction(24), "sky"), tmp_path, motion=still)
    assert (found - changes).abs()[:, 0][:, within.any(axis=0)].max() < 5


def test_what_each_frame_draws_elsewhere_is_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    source = disc(8, 0, lambda _t: (0, 0), 110)
    changes = torch.zeros(8, 3, SIZE, SIZE)
    changes[::2] = 120.0  # half of the frames draw something else
    still = np.zeros((7, 2, SIZE // 2, SIZE // 2, 2), np.float16)
    video = Video(source, Fraction(24), "sky")
    left = smoothed(changes, video, tmp_path, motion=still)
    followed = smoothed(changes, video, tmp_path, motion=still, fits=24.0)
    assert (left[2] - left[3]).abs().min() > 100 and (followed[2] - followed[3]).abs().max() < 20
    source[1::2] = 0  # but not where the source does not fit
    apart = smoothed(changes, Video(source, Fraction(24), "lightning"), tmp_path, fits=24.0, motion=still)
    torch.testing.assert_close(apart, changes, rtol=0, atol=1.0)


def test_strength_zero_changes_nothing(tmp_path: Path) -> None:
    changes = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = smoothed(changes, panned(5), tmp_path, strength=0.0)
    torch.testing.assert_close(found, changes, rtol=0, atol=2e-5)


def disc(frames: int, radius: int, at: Callable[[int], tuple[int, int]], colour: int) -> np.ndarray:
    """[T, H, W, 3] uint8: a disc on grey ground."""
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = np.stack([np.hypot(x - at(t)[0], y - at(t)[1]) < radius for t in range(frames)])
    return np.repeat(np.where(inside, colour, 110)[..., None], 3, axis=-1).astype(np.uint8)


def test_a_thing_that_is_gone_leaves_no_outline(tmp_path: Path) -> None:
    source = disc(10, 14, lambda t: (20 + 2 * t, 30 + t), 230)
    changes = (110.0 - torch.from_numpy(source).permute(0, 3, 1, 2)).float()
    found = smoothed(changes, Video(source, Fraction(24), "disc"), tmp_path, strength=0.8)
    assert (found - changes).abs().max() < 6


def test_a_new_thing_that_moves_otherwise_stays_sharp(tmp_path: Path) -> None:
    source, edited = disc(10, 14, lambda t: (20 + 2 * t, 30), 230), disc(10, 9, lambda t: (20 + 2 * t, 44 - 3 * t), 10)
    changes = torch.from_numpy(edited.astype(np.float32) - source).permute(0, 3, 1, 2)
    found = smoothed(changes, Video(source, Fraction(24), "discs"), tmp_path, strength=0.8)
    middle = found[5, 0, 29, 30] + float(source[5, 29, 30, 0])
    assert abs(middle - 10) < 15 and (found - changes).abs().mean() < 4


def test_where_the_past_ends_there_is_no_line(tmp_path: Path) -> None:
    """Of the right half the motion there and back disagrees, but for a sliver in which it agrees by chance."""
    T, grey = 12, np.full((12, SIZE, SIZE, 3), 120, np.uint8)
    motion = np.zeros((T - 1, 2, SIZE // 2, SIZE // 2, 2), np.float16)
    motion[..., SIZE // 4 :, 1] = 3.0
    motion[..., SIZE * 3 // 8, 1] = 0.0
    flicker = torch.full((T, 3, SIZE, SIZE), 8.0)
    flicker[1::2] = -8.0
    found = smoothed(flicker, Video(grey, Fraction(24), "sliver"), tmp_path, motion=motion)
    left = (found / flicker)[1:-1, :, 4:-4].mean(dim=(0, 1, 2))  # [W] the part of the flicker that is left
    assert left[: SIZE // 2 - 6].max() < 0.2 and left[SIZE // 2 + 4 :].min() > 0.98
    assert left.diff().abs().max() < 0.4  # of two neighbouring pixels


@pytest.mark.parametrize("announced", [True, False])
def test_nothing_crosses_a_cut(tmp_path: Path, announced: bool) -> None:
    video = panned(8, cut=4)
    changes = torch.zeros(8, 3, SIZE, SIZE)
    changes[4:] = 100.0
    found = smoothed(changes, video, tmp_path, cuts=(4,) if announced else ())
    # A cut that nobody announced shows itself by flows there and back that disagree nearly everywhere.
    limit = 0.1 if announced else 25.0
    assert found[:4].mean() < limit and found[4:].mean() > 100 - limit


def test_a_part_is_smoothed_as_in_the_whole(tmp_path: Path) -> None:
    changes = 30 * torch.randn(40, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    video, part = panned(20), slice(7, 12)
    video = Video(np.concatenate([video.frames, video.frames[::-1]]), Fraction(24), "there and back")
    whole = smoothed(changes, video, tmp_path, strength=0.4)
    found = smoothed(changes, video, tmp_path, strength=0.4, part=part)
    assert found[:7].isnan().all() and found[12:].isnan().all()
    torch.testing.assert_close(found[part], whole[part], rtol=0, atol=0.03)
