"""What an edit begins from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.inversion import coarse_part
from adaflow_core.engine import AdaFlow
from adaflow_core.job import Job
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from benchmarks.quality.kinds import make_pair

ROOT = Path(__file__).resolve().parents[2]


def test_what_varies_slowly_is_coarse_and_noise_is_not() -> None:
    ramp = torch.linspace(-2, 2, 32).expand(1, 4, 32, 32)
    torch.testing.assert_close(coarse_part(ramp)[..., 4:-4], ramp[..., 4:-4], rtol=0, atol=1e-5)
    torch.testing.assert_close(coarse_part(torch.full((2, 4, 3, 40), 1.5)), torch.full((2, 4, 3, 40), 1.5))
    noise = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    assert coarse_part(noise)[..., 4:-4, 4:-4].std() == pytest.approx(1 / 9, rel=0.1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow.from_pretrained(
        str(ROOT / "assets/plain-sd"), device="cpu", dtype="float32", cache=Cache(tmp_path_factory.mktemp("cache"))
    )


@pytest.mark.slow
def test_new_surroundings_have_light_and_colours_of_their_own(engine: AdaFlow) -> None:
    pair = make_pair(22, 3, "val", "cpu")
    assert pair.kind == "background"
    plan = engine.plan(pair.source, PlanConfig(source_prompt=pair.source_prompt, keyframes=2))

    def miss(config: EditConfig) -> tuple[float, float]:
        frames = engine.edit(plan, pair.prompt, config).frames.astype(float)
        error = np.abs(frames - pair.truth).mean(axis=-1)
        return float(error[pair.region].mean()), float(error[~pair.region].mean())

    usual, kept = (miss(EditConfig(steps=6, agreements=0, coarse=share)) for share in (None, 1.0))
    assert usual[0] < 0.8 * kept[0] and usual[1] < kept[1] + 3  # of 255


@pytest.mark.slow
def test_only_words_of_the_surroundings_take_the_sources_colours_away(engine: AdaFlow) -> None:
    pair = make_pair(0, 2, "val", "cpu")
    plan = engine.plan(pair.source, PlanConfig(source_prompt="a red car in the desert", keyframes=1))

    def share(prompt: str, config: EditConfig) -> float | None:
        return Job.of(engine.backbone, engine.cache, plan, prompt, config, Monitor()).config.coarse

    surroundings, colour = "a red car in a city", "a blue car in the desert"
    assert share(surroundings, EditConfig()) == 0.5 and share(colour, EditConfig()) == 1.0
    assert share(surroundings, EditConfig(focus=0.0)) == 1.0 and share(colour, EditConfig(coarse=0.2)) == 0.2
