"""The ambiguous world, the model that was plainly trained on it, and the long-range score."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.quality.consistency import far_flows, long_range_error, spread_pairs
from scenes import hidden, world
from scenes.captions import captions, vocabulary
from scenes.render import render
from scenes.rows import Rows
from scenes.training import embedded
from scenes.training.loop import Options
from scenes.training.plain import WIDTHS, train_plain

SIZE = 48
PLAIN = "assets/plain-sd"


def _leaves(rows: Rows) -> list[Tensor]:
    values = [getattr(rows, f.name) for f in fields(rows)]  # type: ignore[arg-type]
    return [leaf for value in values for leaf in (_leaves(value) if isinstance(value, Rows) else [value])]


def _clip(**changes) -> world.SceneBatch:
    row = world.sample(1, seed=4, split="val", motion="still", ambiguous=True)
    return row.replace(present2=False, occluder=0, **changes)


def test_only_the_hidden_variables_differ_from_the_plain_world():
    plain, ambiguous = (world.sample(6, seed=3, ambiguous=value) for value in (False, True))
    back = ambiguous.with_hidden(hidden.neutral(6))
    assert all(torch.equal(a, b) for a, b in zip(_leaves(plain), _leaves(back), strict=True))
    assert captions(plain, 0) == captions(ambiguous, 0)  # captions never name them
    times = torch.tensor([0.5])
    assert torch.equal(render(plain, times, SIZE).rgb, render(back, times, SIZE).rgb)
    assert (render(plain, times, SIZE).rgb - render(ambiguous, times, SIZE).rgb).abs().mean() > 0.02


@pytest.mark.parametrize("style", ["photo", "impressionist"])
def test_hidden_variables_stay_through_a_clip_and_differ_between_clips(style):
    clip = _clip(style=style)
    still = clip.replace(camera_path=0.0, zoom_path=0.0)
    first, last = render(still, torch.tensor([0.0, 1.0]), SIZE).rgb[0]
    torch.testing.assert_close(first, last, atol=1e-5, rtol=0)
    other = render(still.with_hidden(hidden.drawn(1, 99)), torch.tensor([0.0]), SIZE).rgb[0, 0]
    assert (first - other).abs().mean() > 0.02


def test_one_part_is_redrawn_alone():
    clip = _clip(style="photo")
    again = clip.with_hidden(hidden.redrawn(clip.hidden, "main", 5))
    before, after = (render(c, torch.tensor([0.5]), SIZE) for c in (clip, again))
    assert torch.equal(before.ids, after.ids)
    difference = (before.rgb - after.rgb).abs().amax(2)[0, 0]
    assert difference[before.ids[0, 0] == 1].mean() > 0.01
    assert torch.nn.functional.max_pool2d((before.ids[0, 0] == 1).float()[None], 5, 1, 2)[0][difference > 0].min() == 1


def test_long_range_error_is_what_a_naive_loop_finds():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 6, 7, 3), dtype=np.uint8)
    pairs = [(0, 2), (1, 2), (0, 1)]
    flows = rng.integers(-1, 2, (3, 2, 6, 7)).astype(np.float32)
    visible = rng.random((3, 6, 7)) < 0.6
    visible[:, [0, -1]] = visible[:, :, [0, -1]] = False
    visible[2] = False  # shares nothing: left out
    errors = []
    for (a, b), flow, mask in list(zip(pairs, flows, visible, strict=True))[:2]:
        steps = [
            np.abs(frames[b, y + int(flow[1, y, x]), x + int(flow[0, y, x])].astype(float) - frames[a, y, x]).mean()
            for y, x in zip(*mask.nonzero(), strict=True)
        ]
        errors.append(np.mean(steps))
    assert long_range_error(frames, pairs, flows, visible) == pytest.approx(np.mean(errors))
    assert np.isnan(long_range_error(frames, pairs, flows, np.zeros_like(visible)))


def test_a_true_film_agrees_with_itself_far_apart():
    clip = world.sample(1, seed=3, split="val", motion="pan", ambiguous=True).replace(present2=False, style="photo")
    times = np.linspace(0, 1, 9, dtype=np.float32)
    pairs = spread_pairs(9, sampled=3, keyframes=[0, 5])
    assert pairs == [(0, 4), (0, 5), (0, 8), (4, 8)]
    film = (render(clip, torch.from_numpy(times), 96).rgb[0] * 255).byte().permute(0, 2, 3, 1).numpy()
    flows, visible = far_flows(clip, times, pairs, 96)
    true = long_range_error(film, pairs, flows, visible)
    # A film whose frames each choose for themselves is found out.
    chosen = [hidden.drawn(1, seed) for seed in range(9)]
    restless = np.concatenate(
        [
            (render(clip.with_hidden(h), torch.tensor([t]), 96).rgb[0] * 255).byte().permute(0, 2, 3, 1).numpy()
            for h, t in zip(chosen, times.tolist(), strict=True)
        ]
    )
    assert long_range_error(restless, pairs, flows, visible) > 3 * true


def test_the_plain_model_loads_and_draws():
    pipe = embedded.load(PLAIN)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    picture = pipe("a red ball in the desert", num_inference_steps=2, generator=generator, output_type="np").images
    assert picture.shape == (1, 256, 256, 3) and np.isfinite(picture).all()
    with open(f"{PLAIN}/adaflow.json") as file:
        assert set(json.load(file)) == {"size", "vocabulary"}
    assert sum(embedded.check_limits(PLAIN).values()) < 34e6


@pytest.mark.thorough
def test_plain_training_starts_anew_and_goes_on(tmp_path, monkeypatch):
    start = embedded.build(vocabulary(), size=32)
    embedded.save(start, tmp_path / "start")
    options = {"device": torch.device("cpu"), "steps": 1, "batch": 2, "size": 32, "chunk": 4, "pool": 4, "fill": 4}
    train_plain(Options(out=tmp_path / "one", resume=tmp_path / "start", ambiguous=True, **options))
    one = embedded.load(tmp_path / "one")
    assert tuple(one.unet.config.block_out_channels) == WIDTHS
    monkeypatch.setattr(embedded, "build_unet", None)  # a run that goes on builds nothing
    train_plain(Options(out=tmp_path / "two", resume=tmp_path / "one", ambiguous=True, lr=0.0, **options))
    two = embedded.load(tmp_path / "two")
    torch.testing.assert_close(two.unet.conv_in.weight, one.unet.conv_in.weight, atol=1e-3, rtol=0)
