"""Frames that agree while they are denoised: what each drew elsewhere comes together, and what agrees stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adaflow_core.config import EditConfig, PlanConfig, resolve_edit
from adaflow_core.editing.agreement import Agreement, agreeing_steps, shaping_steps
from adaflow_core.editing.finish.film import EditedFilm
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.flow import source_flow
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.video.decode import from_frames
from adaflow_core.video.types import Video

T, SIZE, PAN = 6, 96, 4


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdaFlow]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(tmp_path_factory.mktemp("agreement")))
        yield AdaFlow.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def panned() -> np.ndarray:
    """[T, SIZE, SIZE, 3]: a view that moves over a texture."""
    noise = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    size = SIZE + PAN * T
    large = torch.nn.functional.interpolate(noise, (size, size), mode="bicubic", align_corners=False)
    ground = (60 + 120 * large[0].permute(1, 2, 0).clamp(0, 1)).to(torch.uint8).numpy()
    return np.stack([ground[:SIZE, PAN * t : PAN * t + SIZE] for t in range(T)])


def film_of(
    backbone: Backbone, frames: np.ndarray, cache: Path, cuts: tuple[int, ...] = (), renewed: np.ndarray | None = None
) -> EditedFilm:
    video: Video = from_frames(frames, Fraction(24))
    config = replace(resolve_edit(EditConfig(agreements=2), backbone.profile, PlanConfig()), outlines=0.0)
    kept, monitor = Cache(cache), Monitor()
    return EditedFilm(
        backbone, video, backbone.encode(frames).cpu().numpy(), partial(source_flow, video, kept, monitor),
        np.array(cuts, np.int64), config, kept, monitor, renewed,
    )  # fmt: skip


def agreed(film: EditedFilm, drawn: Tensor) -> np.ndarray:
    """Frames [T, H, W, 3] float of what was drawn [T, 4, h, w], once it agrees."""
    told: list[int] = []
    correction = Agreement(film).correction(drawn, told.append)
    assert correction.shape == drawn.shape and sum(told) == len(drawn)
    return film.backbone.decode(drawn + correction).astype(float)


def test_agreement_comes_between_steps_and_evenly() -> None:
    assert agreeing_steps(4, 25) == [5, 10, 15, 20] and agreeing_steps(1, 10) == [5]
    assert agreeing_steps(0, 25) == [] and agreeing_steps(4, 1) == [] and agreeing_steps(1, 2) == [1]
    assert agreeing_steps(100, 5) == [1, 2, 3, 4]  # not after the last: what comes then is smoothing
    assert shaping_steps(3, 25) == [6, 13] and shaping_steps(2, 12) == [6] and shaping_steps(1, 8) == [4]
    assert shaping_steps(0, 25) == [] and shaping_steps(4, 1) == [] and shaping_steps(100, 5) == [1, 2, 3]


def test_what_each_frame_drew_otherwise_comes_together(engine: AdaFlow, panned: np.ndarray, tmp_path: Path) -> None:
    film = film_of(engine.backbone, panned, tmp_path)
    tones = torch.tensor([-30, 30, -20, 25, -35, 30])
    edited = (torch.from_numpy(panned) + tones[:, None, None, None]).clamp(0, 255).to(torch.uint8).numpy()
    drawn = engine.backbone.encode(edited)
    before, after = engine.backbone.decode(drawn) - panned.astype(float), agreed(film, drawn) - panned
    seen_by_all = (..., slice(8, -8), slice(8, SIZE - PAN * T - 8), slice(None))
    assert after[seen_by_all].mean((1, 2, 3)).std() < 0.4 * before[seen_by_all].mean((1, 2, 3)).std()


def test_what_agrees_stays(engine: AdaFlow, panned: np.ndarray, tmp_path: Path) -> None:
    film = film_of(engine.backbone, panned, tmp_path)
    drawn = engine.backbone.encode(panned[..., ::-1].copy())  # other colours, that move along
    before, after = engine.backbone.decode(drawn).astype(float), agreed(film, drawn)

    def coarse(change: np.ndarray) -> float:  # the autoencoder's own noise differs from frame to frame
        inner = change[:, 8:-8, 8:-8].reshape(T, 10, 8, 10, 8, 3).mean((2, 4))
        return float(np.abs(inner).mean())

    assert coarse(after - before) < 0.25 * coarse(before - panned)


def test_shots_do_not_agree_with_each_other(engine: AdaFlow, panned: np.ndarray, tmp_path: Path) -> None:
    still = np.repeat(panned[:1], T, axis=0)
    tones = torch.tensor([40] * 3 + [-40] * 3)
    edited = (torch.from_numpy(still) + tones[:, None, None, None]).clamp(0, 255).to(torch.uint8).numpy()
    drawn = engine.backbone.encode(edited)
    apart = agreed(film_of(engine.backbone, still, tmp_path, cuts=(3,)), drawn)
    together = agreed(film_of(engine.backbone, still, tmp_path), drawn)
    assert apart[:3].mean() - apart[3:].mean() > 60 > together[:3].mean() - together[3:].mean()


def test_a_new_thing_agrees_where_the_source_does_not_fit(engine: AdaFlow, tmp_path: Path) -> None:
    """Beyond the old thing's outline only its motion, taken as one, brings what frames drew together."""
    y, x = np.mgrid[:SIZE, :SIZE]
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(90, 160, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)

    def disc(t: int, radius: float) -> np.ndarray:
        return (y - 48) ** 2 + (x - 30 - 6 * t) ** 2 < radius**2

    source = np.stack([np.where(disc(t, 14)[..., None], 230, ground) for t in range(T)]).astype(np.uint8)
    colours = [(250, 40, 40), (170, 20, 20)] * (T // 2)  # a larger thing, of which frames draw two kinds
    edited = np.stack([np.where(disc(t, 22)[..., None], colours[t], ground) for t in range(T)]).astype(np.uint8)
    renewed = np.stack([disc(t, 28)[4::8, 4::8] for t in range(T)]).astype(np.float32)
    film, drawn = film_of(engine.backbone, source, tmp_path, renewed=renewed), engine.backbone.encode(edited)
    ring = [disc(t, 20) & ~disc(t, 16) for t in range(T)]

    def spread(frames: np.ndarray) -> float:
        return float(np.std([frames[t][ring[t]][:, 0].mean() for t in range(T)]))

    drawn_by_each = spread(engine.backbone.decode(drawn).astype(float))
    assert spread(agreed(film, drawn)) < 0.6 * drawn_by_each
    followed = agreed(replace(film, renewed=None), drawn)
    assert spread(followed) > 0.8 * drawn_by_each  # as far as the source fits


def test_a_new_thing_agrees_only_while_it_takes_shape(engine: AdaFlow, panned: np.ndarray, tmp_path: Path) -> None:
    film = film_of(engine.backbone, panned, tmp_path)
    assert Agreement(film).due(25) == [8, 17]
    film = replace(film, renewed=np.ones((T, SIZE // 8, SIZE // 8), np.float32))
    assert Agreement(film).due(25) == [13]
    once = replace(film, config=replace(film.config, agreements=1))
    assert [Agreement(once).due(steps) for steps in (2, 3, 10, 15)] == [[1], [2], [5], [8]]


@pytest.mark.thorough
def test_an_edit_with_agreement_flickers_less(engine: AdaFlow, panned: np.ndarray) -> None:
    plan = engine.plan(panned, PlanConfig(keyframes=T, source_prompt="a red ball on the grass"))
    config = EditConfig(steps=4, inversion_steps=4, smoothing=0.0, stride=1, detail=0.0, outlines=0.0, variation=0.5)

    def flicker(agreements: int) -> float:
        frames = engine.edit(plan, "a blue duck at night", replace(config, agreements=agreements)).frames.astype(float)
        moved = frames[1:, 8:-8, 8 : SIZE - PAN - 8] - frames[:-1, 8:-8, 8 + PAN : SIZE - 8]
        return float(np.abs(moved).mean())

    assert flicker(3) < 0.9 * flicker(0)
