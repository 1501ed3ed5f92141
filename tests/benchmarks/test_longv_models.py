"""The loaders of LongV-EVAL's models, on small models of the same kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adaflow_core.errors import AdaFlowError
from benchmarks.longv import dover
from benchmarks.longv.data import Film
from benchmarks.longv.models import Clip, Dino, load_aesthetic
from benchmarks.longv.video_scores import Consistency
from helpers.models.scorers import save_models

CPU = torch.device("cpu")
FILM = Film(seed=0, frames=6, size=64)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_models(tmp_path_factory.mktemp("models"))


def consistency(rows: Tensor) -> float:
    score = Consistency()
    score.update(rows)
    found = score.result()
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "kind"), [("clip", Clip), ("dino", Dino)])
def test_models_tell_pictures_apart(models: dict[str, Path], name: str, kind: Callable[..., Any]) -> None:
    model = kind(str(models[name]), CPU)
    still = np.repeat(FILM.draw([0]), 4, axis=0)
    rows = model.images(still)
    assert rows.shape[0] == 4 and torch.allclose(rows.norm(dim=1), torch.ones(4), atol=1e-5)
    assert consistency(rows) == pytest.approx(1, abs=1e-6), "identical frames are consistent"
    moving = model.images(FILM.draw(range(6)))
    assert consistency(moving) < 1 - 1e-6
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    assert consistency(model.images(noise)) < consistency(moving)


def test_text_and_pictures_share_a_space(models: dict[str, Path]) -> None:
    clip = Clip(str(models["clip"]), CPU)
    red, blue = clip.text("a red ball"), clip.text("a blue ball")
    assert red.shape == clip.images(FILM.draw([0]))[0].shape and float(red.norm()) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(red, blue)
    assert torch.equal(clip.text("a red ball " * 60), clip.text("a red ball " * 50)), "what is too long is cut"


def test_both_aesthetic_heads_are_one_linear_map(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = nn.functional.normalize(torch.randn(5, 16), dim=-1)
    single = nn.Linear(16, 1)
    # The improved predictor: layers with dropout between them, so numbered with gaps.
    improved = nn.Sequential(
        nn.Linear(16, 8), nn.Dropout(0.2), nn.Linear(8, 4), nn.Dropout(0.2), nn.Linear(4, 4), nn.Dropout(0.1),
        nn.Linear(4, 3), nn.Linear(3, 1),
    ).eval()  # fmt: skip
    for name, head, state in (
        ("single", single, single.state_dict()),
        ("improved", improved, {f"layers.{key}": value for key, value in improved.state_dict().items()}),
    ):
        torch.save(state, tmp_path / name)
        weight, bias = load_aesthetic(str(tmp_path / name))
        assert torch.allclose(rows @ weight + bias, head(rows)[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    "content", [{"other": torch.zeros(1)}, [torch.zeros(1)], {"weight": 1, "bias": 2}, 3, b"<!DOCTYPE html>", b"", None]
)
def test_what_is_no_aesthetic_head_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(AdaFlowError, match="--aesthetic"):
        load_aesthetic(str(path))


def test_dover_looks_at_the_middle_of_each_part() -> None:
    assert dover.aesthetic_frames(320).tolist()[:3] == [5, 15, 25] and len(dover.aesthetic_frames(8)) == 32
    chosen = dover.technical_frames(600)
    assert chosen.shape == (3, 32) and (np.diff(chosen, axis=1) == 2).all()
    assert chosen[:, 0].tolist() == [68, 268, 468]
    assert dover.technical_frames(5).max() < 5
    # Fragments keep the pixels: each 32-pixel piece is found as it was, in the middle of its cell.
    frame = np.random.default_rng(0).integers(0, 255, (448, 672, 3), dtype=np.uint8)
    pieces = dover.sample_fragments(frame)
    assert pieces.shape == (3, 224, 224)
    levels = pieces * torch.tensor(dover.STD)[:, None, None] + torch.tensor(dover.MEAN)[:, None, None]
    piece = frame[64 + 16 : 64 + 48, 2 * 96 + 32 : 2 * 96 + 64].transpose(2, 0, 1)
    assert np.allclose(levels[:, 32:64, 64:96], piece, atol=1e-3)
    assert dover.sample_fragments(frame[:100, :120]).shape == dover.resize_frame(frame).shape == (3, 224, 224)
    assert dover.fuse(-0.08285, 0.1107) == pytest.approx(0.5), "a usual video"
    assert dover.fuse(0.0, 0.2) > dover.fuse(-0.1, 0.1)


def test_video_quality_from_its_views(models: dict[str, Path]) -> None:
    model = dover.load_dover(str(models["dover.pt"]), CPU)
    grey = np.full((9, 64, 96, 3), 128, np.uint8)
    score = dover.VideoQuality(model, 9, CPU)
    for part in (grey[:4], grey[4:]):
        score.update(part)
    level = float(((128 - np.array(dover.MEAN)) / np.array(dover.STD)).mean())
    assert score.result() == pytest.approx(dover.fuse(level, level), abs=1e-4)
    for path in ("none.pt", str(models["head.pth"])):
        with pytest.raises(AdaFlowError, match="--dover"):
            dover.load_dover(path, CPU)
