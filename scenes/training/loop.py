"""The training loop that the VAE, the diffusion model and the judge share.

Started by `torchrun`, it trains on several cards: each draws scenes of its own, gradients are averaged.
"""

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

LOG_SECONDS = 10.0
WARM_UP_STEPS = 200
SHARE_STEPS = 16
UNTIMED_STEPS = 3  # library start-up: not part of the schedule
CLIP_NORM = 1.0
EMA_POWER = 16.0  # averages over about the last 6 % of the steps; Karras et al. 2024, section 3


@dataclass(frozen=True)
class Options:
    """The options of one training stage; `minutes` or `steps` gives its length."""

    out: Path
    device: torch.device
    resume: Path | None = None
    minutes: float | None = None
    steps: int | None = None
    batch: int = 64
    lr: float = 8e-4
    decay_to: float = 0.0  # the learning rate at the end, as a part of its peak
    seed: int = 0
    size: int = 256  # pixels
    chunk: int = 1024  # scenes drawn at a time
    pool: int = 65536  # rows kept on the device
    fill: int = 16384  # rows drawn before the first step
    redraw_every: int = 32  # steps between two chunks of new scenes
    workers: int = 0  # processes that write captions
    save_minutes: float = 2.0
    pack: Path | None = None
    channels_last: bool = False
    freeze_encoder: bool = False
    ambiguous: bool = False  # scenes with hidden variables
    snr_cap: float = 5.0  # a plain model's timesteps weigh min(SNR, cap) / SNR: a higher one asks more of fine detail
    compile: bool = False  # the UNet, by torch.compile: a minute once, then faster steps

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give either --minutes or --steps")

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in; the optimizer always works on float32 weights."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32


RANK = int(os.environ.get("RANK", "0"))  # set by torchrun: one process a card
WORLD = int(os.environ.get("WORLD_SIZE", "1"))


def say(*words: object) -> None:
    if RANK == 0:
        print(*words, flush=True)


def join(device: torch.device) -> None:
    """Join the process group of a run on several cards, if there is one.

    To be called after the processes that write captions were forked, because it starts threads.
    """
    if WORLD > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def average(tensors: list[Tensor], device: torch.device) -> None:
    """Replace tensors by their mean over all processes, in one message."""
    if WORLD > 1:
        flat = torch.cat([tensor.flatten() for tensor in tensors]).to(device)
        dist.all_reduce(flat)
        parts = flat.div_(WORLD).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(to) for part, to in zip(parts, tensors, strict=True)])


class Clock:
    """Measures the progress of a stage by the wall clock or by steps.

    It starts with the stage, so that filling the pool counts towards the minutes; the learning rate follows the time
    from the first timed step on.
    """

    def __init__(self, minutes: float | None, steps: int | None) -> None:
        self.started = self.timed_from = time.perf_counter()
        self.deadline = math.inf if minutes is None else self.started + 60 * minutes
        self.steps = steps
        self.step = 0
        self.shared = 0.0

    def tick(self) -> None:
        self.step += 1
        if self.step == UNTIMED_STEPS:
            self.timed_from = time.perf_counter()

    @property
    def progress(self) -> float:
        """0 at the first timed step, 1 when the stage is over.

        Processes that train together use their mean, renewed every `SHARE_STEPS` steps: their learning rates, and
        so their weights, stay equal, and they end at the same step.
        """
        return self._progress() if WORLD == 1 or self.steps is not None else self.shared

    def share(self, device: torch.device) -> None:
        if self.step % SHARE_STEPS == 0:
            mean = torch.tensor([self._progress()])
            average([mean], device)
            self.shared = mean.item()

    def _progress(self) -> float:
        if self.steps is not None:
            return min(self.step / self.steps, 1.0)
        now = time.perf_counter()
        return 1.0 if now >= self.deadline else (now - self.timed_from) / (self.deadline - self.timed_from)

    @property
    def elapsed(self) -> float:
        """Seconds since the stage started."""
        return time.perf_counter() - self.started


def learning_rate(clock: Clock, peak: float, decay_to: float) -> float:
    """Linear warm-up, then half a cosine from `peak` down to `decay_to * peak`."""
    warm_up = WARM_UP_STEPS if clock.steps is None else min(WARM_UP_STEPS, clock.steps // 10 + 1)
    low = decay_to * peak
    cosine = low + (peak - low) * 0.5 * (1 + math.cos(math.pi * clock.progress))
    return cosine * min(1.0, (clock.step + 1) / warm_up)


class Trainee:
    """Networks in training, each as three copies: for computing, the float32 weights, and their moving average.

    The computing copy has the device's fast dtype throughout. Autocast would instead run every group norm in
    float32 and move twice the bytes, and these networks are bound by memory, not by arithmetic.
    """

    def __init__(self, modules: dict[str, nn.Module], options: Options) -> None:
        join(options.device)
        self.device = options.device
        self.masters = {name: module.to(options.device).float() for name, module in modules.items()}
        self.averages = {name: copy.deepcopy(module).eval() for name, module in self.masters.items()}
        layout = torch.channels_last if options.channels_last else torch.preserve_format
        self.working = {
            name: nn.Module.to(copy.deepcopy(module), dtype=options.dtype, memory_format=layout)  # type: ignore
            for name, module in self.masters.items()
        }
        self.master_weights = _trainable(self.masters)
        self.average_weights = _trainable(self.averages)
        self.working_weights = _trainable(self.working)
        for weight in self.average_weights:
            weight.requires_grad_(False)
        self.gradients = [torch.zeros_like(weight) for weight in self.master_weights]
        for weight, gradient in zip(self.master_weights, self.gradients, strict=True):
            weight.grad = gradient
        self.optimizer = torch.optim.AdamW(
            self.master_weights,
            lr=options.lr,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=options.device.type == "cuda",
        )
        self.updates = 0

    def step(self, loss: Tensor, lr: float) -> None:
        for weight in self.working_weights:
            weight.grad = None
        loss.backward()
        torch._foreach_copy_(self.gradients, [_gradient(weight) for weight in self.working_weights])
        average(self.gradients, self.device)
        torch.nn.utils.clip_grad_norm_(self.master_weights, CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.updates += 1
        with torch.no_grad():
            torch._foreach_copy_(self.working_weights, self.master_weights)
            keep = (1 - 1 / self.updates) ** (1 + EMA_POWER)
            torch._foreach_lerp_(self.average_weights, self.master_weights, 1 - keep)


def _trainable(modules: dict[str, nn.Module]) -> list[Tensor]:
    return [weight for module in modules.values() for weight in module.parameters() if weight.requires_grad]


def _gradient(weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise RuntimeError("a weight got no gradient: freeze what the loss does not reach")
    return weight.grad


def fit(
    trainee: Trainee,
    loss: Callable[[], Tensor],
    redraw: Callable[[], None],
    save: Callable[[], None],
    options: Options,
    clock: Clock,
) -> None:
    """Train until the clock is done: `loss()` gives a scalar, `redraw()` adds scenes, `save()` keeps weights.

    Nothing in a step waits for the device; the log reads the loss every ten seconds.
    """
    for _ in range(-(-options.fill // options.chunk)):
        redraw()
    say(f"  {options.fill} scenes drawn after {clock.elapsed:.1f} s")
    total = torch.zeros((), device=options.device)
    logged_at, logged_step, saved_at = time.perf_counter(), 0, time.perf_counter()
    while True:
        clock.share(options.device)
        if clock.progress >= 1.0:
            break
        if clock.step % options.redraw_every == options.redraw_every - 1:
            redraw()
        lr = learning_rate(clock, options.lr, options.decay_to)
        value = loss()
        trainee.step(value, lr)
        total += value.detach()
        clock.tick()
        now = time.perf_counter()
        if now - logged_at > LOG_SECONDS or clock.step in (1, UNTIMED_STEPS):
            steps = clock.step - logged_step
            mean = total.item() / steps  # waits for the device: the speed below is real
            speed = WORLD * steps * options.batch / (time.perf_counter() - logged_at)
            say(
                f"  step {clock.step:6d}  {clock.elapsed:6.1f} s  {100 * clock.progress:5.1f} %  "
                f"{speed:8.1f} pictures/s  loss {mean:.4f}  lr {lr:.2e}"
            )
            total.zero_()
            logged_at, logged_step = time.perf_counter(), clock.step
        if RANK == 0 and now - saved_at > 60 * options.save_minutes:
            save()
            saved_at = time.perf_counter()
    if RANK == 0:
        save()
    if WORLD > 1:
        dist.barrier()
        dist.destroy_process_group()
    say(f"  {clock.step} steps of {WORLD * options.batch} in {clock.elapsed:.1f} s")
