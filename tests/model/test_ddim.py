"""The grids of timesteps and the deterministic move, against diffusers' own scheduler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from adaflow_core.model.ddim import (
    CLEAN,
    Prediction,
    Schedule,
    add_noise,
    cfg,
    ddim_step,
    edit_timesteps,
    inversion_moves,
    predict_x0_eps,
    step_targets,
)

KINDS: tuple[Prediction, ...] = ("epsilon", "v_prediction")


def scheduler(prediction: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def schedule(prediction: Prediction = "epsilon") -> Schedule:
    return Schedule(scheduler().alphas_cumprod.double(), prediction)


def schedule_of(scheduler: DDIMScheduler) -> Schedule:
    config = scheduler.config
    return Schedule(
        scheduler.alphas_cumprod.double(), config.prediction_type, config.steps_offset, config.timestep_spacing,
        config.set_alpha_to_one,
    )  # fmt: skip


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("steps", "inversion_steps"), [(12, 12), (25, 50), (30, 60), (50, 100), (12, 48)])
def test_the_inversion_visits_every_timestep_of_the_edit(steps: int, inversion_steps: int) -> None:
    timesteps = edit_timesteps(schedule(), steps)
    factor = inversion_steps // steps
    moves = inversion_moves(schedule(), timesteps, factor)
    ascending = np.array([target for _, target in moves])
    assert [origin for origin, _ in moves] == [CLEAN, *ascending[:-1]]
    assert len(ascending) == (steps - 1) * factor + 1
    assert (ascending[1:] > ascending[:-1]).all()
    assert ascending[::factor].tolist() == timesteps[::-1].tolist()
    between = [(low + (high - low) * i / factor) for low, high in zip(timesteps[:0:-1], timesteps[-2::-1], strict=True)
               for i in range(factor)]  # fmt: skip
    assert abs(ascending[:-1] - between).max() <= 0.5


@pytest.mark.parametrize("steps", [1, 2, 12, 30, 50, 999])
def test_the_edit_visits_the_timesteps_of_diffusers(steps: int) -> None:
    reference = scheduler()
    reference.set_timesteps(steps)
    assert edit_timesteps(schedule(), steps).tolist() == reference.timesteps.tolist()


GRIDS = [
    {"timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": to_one}
    for spacing in ("leading", "trailing", "linspace")
    for offset, to_one in ((1, False), (0, True))
] + [{"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("steps", [7, 10, 30])
def test_both_ways_are_those_of_diffusers_in_every_spacing(grid: dict, steps: int) -> None:
    forward = DDIMScheduler.from_config(scheduler().config, **grid)
    own = schedule_of(forward)
    forward.set_timesteps(steps)
    timesteps = edit_timesteps(own, steps)
    assert timesteps.tolist() == forward.timesteps.tolist()
    there = back = noise(0)
    for i, (origin, target) in enumerate(zip(timesteps.tolist(), step_targets(own, timesteps).tolist(), strict=True)):
        there = ddim_step(own, there, noise(i), origin, target)
        back = forward.step(noise(i), origin, back, eta=0.0).prev_sample.double()
        torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-5)
    # diffusers' inversion refuses linspace; its step does not need the spacing.
    usual = "leading" if own.spacing == "linspace" else own.spacing
    inverse = DDIMInverseScheduler.from_config(forward.config, timestep_spacing=usual)
    inverse.set_timesteps(steps)
    moves = inversion_moves(own, timesteps, 1)
    if own.spacing == usual:
        assert [target for _, target in moves] == inverse.timesteps.tolist()
    there = back = noise(1)
    for i, (origin, target) in enumerate(moves):
        there = ddim_step(own, there, noise(i), origin, target)
        back = inverse.step(noise(i), target, back).prev_sample.double()
        torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-5)


def test_no_timestep_lies_outside_the_training() -> None:
    assert edit_timesteps(schedule(), 1000).max() == 999


@pytest.mark.parametrize("prediction", KINDS)
@pytest.mark.parametrize("steps", [12, 50])
def test_a_move_is_the_step_of_diffusers(prediction: Prediction, steps: int) -> None:
    reference, own = scheduler(prediction), schedule(prediction)
    reference.set_timesteps(steps)
    timesteps = [int(t) for t in edit_timesteps(own, steps)]
    for i, (here, there) in enumerate(zip(timesteps, [*timesteps[1:], CLEAN], strict=True)):
        sample, output = noise(i), noise(1000 + i)
        expected = reference.step(output, here, sample, eta=0.0)
        torch.testing.assert_close(
            ddim_step(own, sample, output, here, there), expected.prev_sample.double(), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            predict_x0_eps(own, sample, output, here)[0], expected.pred_original_sample.double(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("origin", [CLEAN, 1, 500, 999])
@pytest.mark.parametrize("target", [CLEAN, 84, 999])
def test_there_and_back_with_the_same_noise_is_exact(origin: int, target: int) -> None:
    sample, epsilon = noise(1), noise(2)
    there = ddim_step(schedule(), sample, epsilon, origin, target)
    torch.testing.assert_close(ddim_step(schedule(), there, epsilon, target, origin), sample, rtol=0, atol=1e-12)
    alpha, beta = schedule().alpha(origin), schedule().alpha(target)
    x0 = (sample - (1 - alpha) ** 0.5 * epsilon) / alpha**0.5
    torch.testing.assert_close(there, beta**0.5 * x0 + (1 - beta) ** 0.5 * epsilon, rtol=0, atol=1e-12)


@pytest.mark.parametrize("timestep", [1, 300, 950])
def test_v_prediction_says_the_same_as_epsilon(timestep: int) -> None:
    clean, epsilon = noise(3), noise(4)
    alpha = schedule().alpha(timestep)
    sample = add_noise(schedule(), clean, epsilon, timestep)
    velocity = alpha**0.5 * epsilon - (1 - alpha) ** 0.5 * clean
    for kind, output in zip(KINDS, (epsilon, velocity), strict=True):
        x0, found = predict_x0_eps(schedule(kind), sample, output, timestep)
        torch.testing.assert_close(x0, clean, rtol=0, atol=1e-9)
        torch.testing.assert_close(found, epsilon, rtol=0, atol=1e-9)


def test_noise_is_added_as_diffusers_adds_it() -> None:
    clean, epsilon = noise(5), noise(6)
    expected = scheduler().add_noise(clean, epsilon, torch.tensor([261, 261]))
    torch.testing.assert_close(add_noise(schedule(), clean, epsilon, 261), expected, rtol=1e-5, atol=1e-6)


def test_guidance_leads_away_from_the_negative() -> None:
    negative, positive = noise(7), noise(8)
    torch.testing.assert_close(cfg(negative, positive, 7.5), negative + 7.5 * (positive - negative))
    assert torch.equal(cfg(negative, positive, 1.0), positive)
