"""The propagation residual: the error of propagation on the source itself, for given keyframes and for all pairs.

The source's latents are propagated from keyframes along the edit's correspondences and compared with each frame's own
latents. On the drawn world this predicts an edit's errors far better than the same with the source's self-attention
outputs (benchmarks/RESULTS.md). It always blends the keyframes before and after a frame; it does not predict an edit
without `blend`, which takes from its segment's keyframe only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import gather_blend
from adaflow_core.model.memory import in_chunks, to_device
from adaflow_core.planning.correspondence import blend_weights, match_to_keyframes, neighbours
from adaflow_core.planning.matching import PooledFeatures, area_means, best_match
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import scratch
from adaflow_core.types import Features, Grid, Plan

MAX_TOKENS = 256  # of a frame, on which the error is computed
# Pairs of frames that are matched to find the costs of all keyframes; two seconds on two CPU cores.
PAIRS_CUDA, PAIRS = 2**16, 2**12
MIN_REACH = 16  # places in the sample that neighbouring keyframes may always lie apart
NEAR = 4  # the distance in the sample across which the rate of change is measured
ENTRIES_CUDA, ENTRIES = 2**25, 2**23  # floats in memory at a time
NO_FRAMES = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class Sampling:
    """Which frames may become keyframes: every `stride`-th of a shot, paired with those within `width` places."""

    stride: int
    width: int  # two neighbouring keyframes lie at most width - 1 places of the sample apart

    @classmethod
    def for_count(cls, count: int, reach: int, T: int, shots: int, pairs: int) -> Sampling:
        """Return the finest sampling for about `count` keyframes of T frames with at most `pairs`, else the coarsest.

        Neighbouring keyframes may lie at least `reach` times their mean distance apart. The coarsest has about two
        sampled frames for each keyframe.
        """
        for stride in range(1, max(1, T // (2 * count)) + 1):
            N = -(-T // stride) + shots - 1
            width = min(N, max(MIN_REACH, reach * N // count))
            if N * width <= pairs:
                break
        return cls(stride, min(N, max(width, pairs // N)))


@dataclass(frozen=True)
class PairCosts:
    """Errors of the frames between two keyframes, for all pairs of a sample of the timeline: sum [0] and maximum [1].

    A frame's error is the squared difference divided by its own variance. It is infinite if a shot would have no
    keyframe, or if the two keyframes lie more than B - 1 places of the sample apart.
    """

    frame_ids: np.ndarray  # [N] int64, ascending
    first: np.ndarray  # [2, N] of the frames before i, if it is the first keyframe
    last: np.ndarray  # [2, N] of the frames after i, if it is the last keyframe
    between: np.ndarray  # [2, N, B] of the frames between i and i + d, if these are neighbouring keyframes

    @property
    def stride(self) -> int:
        """The largest distance between neighbouring frames of the sample; 1: it holds all frames."""
        return int(np.diff(self.frame_ids).max(initial=1))

    @property
    def unevenness(self) -> float:
        """How many dB smaller the errors are with the best spacing of keyframes than with even spacing.

        If a frame's error is its own rate r times the distance, the best spacing is proportional to 1 / sqrt(r), and
        its error is mean(sqrt(r))^2 / mean(r) times that of even spacing.
        """
        rates = self.between[0, :, min(NEAR, self.between.shape[2] - 1)]
        rates = rates[np.isfinite(rates)]
        if not rates.sum() > 0:
            return 0.0
        return float(10 * np.log10(rates.mean() / np.sqrt(rates).mean() ** 2))


class PropagationResidual:
    """The errors of propagation in one video. Costs are kept, so that a moved slider is cheap."""

    def __init__(
        self,
        features: Features,
        latents: np.ndarray,
        cuts: np.ndarray,
        device: torch.device | str = "cpu",
        pooled: PooledFeatures | None = None,  # given where they are shared with `FrameSimilarity`
    ) -> None:
        self.cuts, self.pooled, self.T = cuts, pooled or PooledFeatures(features, device), len(latents)
        self.device, grid = self.pooled.device, self.pooled.base
        self.pairs = PAIRS_CUDA if self.device.type == "cuda" else PAIRS
        self._latents = _pooled_latents(latents, grid, self.device)
        variance = self._latents.var(dim=1, correction=0).sum(dim=-1)  # [T]
        # A frame without structure has next to no variance, and any difference over it would be huge.
        self._variance = variance.clamp(min=0.01 * float(variance.mean()) + 1e-9)
        self._sampled = _one_of_each_block(grid, MAX_TOKENS).to(self.device)  # [Q] tokens
        self._costs: dict[tuple[Sampling, bytes], PairCosts] = {}
        self._last: tuple[tuple[bytes, bytes, int], np.ndarray] | None = None  # what was asked for, and the errors

    def __call__(self, keyframes: np.ndarray, frame_ids: np.ndarray, monitor: Monitor, chunk: int = 32) -> np.ndarray:
        """Return [F] float32, each frame's root mean square error divided by its own deviation; 0 at keyframes.

        The last result is kept: choosing keyframes asks several times for the errors of the final ones.
        """
        asked = keyframes.tobytes(), frame_ids.tobytes(), chunk
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._errors(keyframes, frame_ids, monitor, chunk)
        return self._last[1].copy()

    def _errors(self, keyframes: np.ndarray, frame_ids: np.ndarray, monitor: Monitor, chunk: int) -> np.ndarray:
        slots, temporal = neighbours(keyframes, frame_ids, self.cuts)
        result = np.zeros(len(frame_ids), dtype=np.float32)
        others = np.flatnonzero(~np.isin(frame_ids, keyframes))
        with monitor.stage("residual", len(others)) as stage:
            for part in stage.chunks(len(others), chunk):
                rows = others[part]
                used, local = np.unique(slots[rows], return_inverse=True)
                local = local.reshape(-1, 2)
                tokens = self._tokens_of(frame_ids[rows])[:, self._sampled]
                index, weights = match_to_keyframes(tokens, self._tokens_of(keyframes[used]), local, temporal[rows])
                blended = gather_blend(self._latents_of(keyframes[used]), to_device(local, self.device), index, weights)
                error = _mean_square(blended - self._latents_of(frame_ids[rows])[:, self._sampled])
                result[rows] = (error / self._variance[to_device(frame_ids[rows], self.device)]).sqrt().cpu().numpy()
        return result

    def best_keyframes(
        self, count: int, most: int, monitor: Monitor, also: np.ndarray = NO_FRAMES
    ) -> Iterator[tuple[np.ndarray, float, PairCosts]]:
        """Yield what the function `best_keyframes` does for `count` to `most` keyframes, with the costs used.

        Larger numbers come from finer samples. The frames `also` [A], ascending, are in every sample.
        """
        while True:
            costs = self.costs(count, monitor, also)
            N = len(costs.frame_ids)
            # A sample serves up to twice the keyframes it was made for or half its frames, then until a finer is due.
            beyond = range(max(count + 1, min(2 * count, N // 2)), min(most, N + 1))
            last = next((number for number in beyond if self._sampling(number, 3).stride < costs.stride), most)
            for keyframes, worst in best_keyframes(costs, count, last):
                yield keyframes, worst, costs
            if last == most:
                return
            count = last

    def costs(self, count: int, monitor: Monitor, also: np.ndarray = NO_FRAMES) -> PairCosts:
        """Return the costs for about `count` keyframes: the more, the finer the sample and the shorter its reach."""
        reach = 3
        while True:
            sampling = self._sampling(count, reach)
            if (sampling, also.tobytes()) not in self._costs:
                self._costs[sampling, also.tobytes()] = self._measure(sampling, also, monitor)
            costs = self._costs[sampling, also.tobytes()]
            if costs.between.shape[2] == len(costs.frame_ids) or next(best_keyframes(costs, count, count), None):
                return costs
            reach *= 2

    def missed(self, costs: PairCosts, frame_ids: np.ndarray, threshold: float, monitor: Monitor) -> np.ndarray:
        """Return the frames that stay over the threshold whichever sampled frames are keyframes, the worst first.

        Such a frame is unlike the sampled ones on either side of it; it may be a flash or damaged.
        """
        least = self(costs.frame_ids, frame_ids, monitor)  # with all of the sample as keyframes
        return frame_ids[np.argsort(-least, kind="stable")][: int((least > threshold).sum())]

    def _sampling(self, count: int, reach: int) -> Sampling:
        return Sampling.for_count(count, reach, self.T, len(self.cuts) + 1, self.pairs)

    def _measure(self, sampling: Sampling, also: np.ndarray, monitor: Monitor) -> PairCosts:
        borders = np.array([0, *self.cuts, self.T])
        every = np.concatenate([np.arange(a, b, sampling.stride) for a, b in pairwise(borders)])
        frame_ids = np.union1d(every, also)
        shots = np.searchsorted(self.cuts, frame_ids, side="right")
        counts = np.minimum(np.append(frame_ids[1:], self.T), borders[shots + 1]) - frame_ids
        sample = _Sample(*(to_device(x, self.device) for x in (frame_ids, shots, counts)))
        N = len(frame_ids)
        width = min(N, -(-sampling.width * N // len(every)))  # as far in time as without `also`
        tokens, latents = self._tokens_of(frame_ids), self._latents_of(frame_ids)
        queries, targets = tokens[:, self._sampled], latents[:, self._sampled]
        shape = (2, width, N, len(self._sampled))
        difference = torch.zeros(*shape, latents.shape[-1], device=self.device, dtype=tokens.dtype)
        confidence = torch.zeros(shape, device=self.device, dtype=tokens.dtype)
        errors = torch.zeros(shape[:-1], device=self.device)
        variance = self._variance[sample.frame_ids]
        with monitor.stage("refine", 2 * (width - 1)) as stage:
            for d in range(1, width):
                for side, here, there in ((0, slice(d, None), slice(None, -d)), (1, slice(None, -d), slice(d, None))):
                    confidence[side, d, here], index = best_match(queries[here], tokens[there])
                    taken = latents[there].gather(1, index[:, :, None].expand(-1, -1, latents.shape[-1]))
                    difference[side, d, here] = (taken - targets[here]).to(difference.dtype)
                    errors[side, d, here] = _mean_square(difference[side, d, here]) / variance[here]
                stage.advance()
            between = np.full((2, N, width), np.inf)
            between[:, :, 0] = 0.0
            for d in range(1, width):
                between[:, : N - d, d] = _between(d, sample, difference, confidence, errors, variance)
                stage.advance()
        return PairCosts(frame_ids, *_ends(errors.cpu().numpy(), shots, counts), between)

    def release(self) -> None:
        """Move the latents off the device until they are needed; `pooled` is released by its owner."""
        self._latents = self._latents.cpu()

    def _tokens_of(self, frame_ids: np.ndarray) -> Tensor:
        return self.pooled(self.pooled.base)(frame_ids)

    def _latents_of(self, frame_ids: np.ndarray) -> Tensor:
        self._latents = self._latents.to(self.device)
        return self._latents[to_device(frame_ids, self.device)]


@torch.inference_mode()
def edited_residual(backbone: Backbone, plan: Plan, frames: np.ndarray, monitor: Monitor) -> np.ndarray:
    """Return [T] float32, the propagation residual of an edit: what its keyframes do not explain in its other frames.

    It is computed as the plan's residual, with the same keyframes and correspondences, but on the latents of the edited
    `frames` [T, H, W, 3] uint8; in deviations of a frame's own latents, 0 at keyframes. Where it is far over the
    plan's, the edit does not follow its source's motion.
    """
    T, (width, height) = len(frames), plan.video.size
    latents = scratch(np.float32, (T, backbone.latent_channels, height // backbone.factor, width // backbone.factor))
    with monitor.stage("residual", T) as stage:

        def encode(part: slice) -> None:
            latents[part] = backbone.fetch(backbone.encode(np.asarray(frames[part])))
            stage.advance(part.stop - part.start)

        in_chunks(T, backbone.vae_chunk(width, height), encode)
        residual = PropagationResidual(plan.features, latents, plan.segments.cuts, backbone.device)
        return residual(plan.segments.keyframes, np.arange(T), monitor.quiet())


class _Sample(NamedTuple):
    """A sample of the timeline, on the device: [N] each."""

    frame_ids: Tensor
    shots: Tensor
    counts: Tensor  # frames of the timeline that each stands for


def _mean_square(difference: Tensor) -> Tensor:
    """Return [...], the squared difference [..., Q, 4] summed over a token's latents and averaged over tokens."""
    return difference.float().square().sum(dim=-1).mean(dim=-1)


def _ends(errors: np.ndarray, shots: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `PairCosts.first` and `.last` from the errors [2, B, N] of frames with a keyframe on one side only."""
    _, width, N = errors.shape
    first, last = np.full((2, N), np.inf), np.full((2, N), np.inf)
    for j in range(N):
        before, after = np.arange(j), np.arange(j + 1, N)
        if len(before) < width and shots[j] == shots[0]:
            error = errors[1, j - before, before]
            first[:, j] = error @ counts[before], error.max(initial=0.0)
        if len(after) < width and shots[j] == shots[-1]:
            error = errors[0, after - j, after]
            last[:, j] = error @ counts[after], error.max(initial=0.0)
    return first, last


def _between(
    d: int,
    sample: _Sample,
    # [0, d]: for a frame that takes from the keyframe d places before it; [1, d]: from that d places after it.
    difference: Tensor,  # [2, B, N, Q, 4] from the frame's own latents
    confidence: Tensor,  # [2, B, N, Q] the similarity of its matches
    errors: Tensor,  # [2, B, N]
    variance: Tensor,  # [N]
) -> np.ndarray:
    """Return [2, N - d]: sum and maximum of the errors between all pairs of keyframes that lie `d` places apart."""
    device, found = errors.device, []
    inside = torch.arange(1, d, device=device)  # [d - 1]
    entries = ENTRIES_CUDA if device.type == "cuda" else ENTRIES
    chunk = max(1, entries // (d * difference[0, 0, 0].numel()))
    for a in torch.arange(errors.shape[-1] - d, device=device).split(chunk):
        a = a[:, None]
        f, b = a + inside, a + d
        before, after = (0, inside, f), (1, d - inside, f)
        near = (sample.frame_ids[b] - sample.frame_ids[f]) / (sample.frame_ids[b] - sample.frame_ids[a])
        both = torch.stack([confidence[before], confidence[after]], dim=2)  # [A, d - 1, 2, Q]
        share = blend_weights(torch.stack([near, 1 - near], dim=2).flatten(0, 1), both.flatten(0, 1))
        share = share.unflatten(0, f.shape)[..., None]
        blended = difference[before] * share[:, :, 0] + difference[after] * share[:, :, 1]
        error = _mean_square(blended) / variance[f]
        # A keyframe serves only its own shot; a frame with neither of the two in its shot rules the pair out.
        left, right = (sample.shots[f] == sample.shots[side] for side in (a, b))
        error = torch.where(left & right, error, torch.where(left, errors[before], errors[after]))
        error = torch.where(left | right, error, torch.inf)
        worst = error.amax(dim=1) if d > 1 else error.new_zeros(len(a))
        found.append(torch.stack([(error * sample.counts[f]).sum(dim=1), worst]))
    return torch.cat(found, dim=1).cpu().numpy()


def _pooled_latents(latents: np.ndarray, grid: Grid, device: torch.device, chunk: int = 256) -> Tensor:
    """Return the mean latents of each token, [T, n, 4] float32 on the device, of latents [T, 4, h, w]."""
    out = torch.empty(len(latents), grid.n, latents.shape[1], device=device)
    for start in range(0, len(latents), chunk):
        read = to_device(np.asarray(latents[start : start + chunk]), device).float()
        out[start : start + chunk] = rearrange(area_means(read, (grid.h, grid.w)), "t c h w -> t (h w) c")
    return out


def _one_of_each_block(grid: Grid, most: int) -> Tensor:
    """Return [Q] int64, one random token of each block of neighbouring tokens; at most `most` blocks."""
    side = 1
    while -(-grid.h // side) * -(-grid.w // side) > most:
        side += 1
    tokens, random = np.arange(grid.n).reshape(grid.h, grid.w), np.random.default_rng(0)
    corners = product(range(0, grid.h, side), range(0, grid.w, side))
    blocks = [tokens[y : y + side, x : x + side].flatten() for y, x in corners]
    return torch.tensor([int(block[random.integers(len(block))]) for block in blocks])


def best_keyframes(costs: PairCosts, least: int, most: int) -> Iterator[tuple[np.ndarray, float]]:
    """Yield for each number from `least` to `most` the keyframes with the least total error, and the worst error.

    Numbers of keyframes that the sample does not allow are skipped.
    """
    for places in shortest_paths(costs.first[0], costs.between[0], costs.last[0], least, most):
        errors = [costs.first[1, places[0]], *costs.between[1, places[:-1], np.diff(places)], costs.last[1, places[-1]]]
        yield costs.frame_ids[places], float(max(errors))


def shortest_paths(
    first: np.ndarray,  # [N] the cost of a path that begins at i
    step: np.ndarray,  # [N, B] the cost of the step from i to i + d
    last: np.ndarray,  # [N] the cost of a path that ends at i
    least: int,
    most: int,
) -> Iterator[np.ndarray]:
    """Yield for each number of places from `least` to `most` the cheapest path through that many, [count] int64.

    Paths of infinite cost are skipped. Found by dynamic programming; ties go to the path with shorter steps at its end.
    """
    N, width = step.shape
    distance = np.arange(width)
    origin = np.arange(N)[:, None] - distance  # [N, B] the place from which a step of each length arrives here
    arriving = np.where((origin >= 0) & (distance > 0), step[origin.clip(0), distance], np.inf)
    total = first  # [N] the cost of the cheapest path of `count` places that ends here
    lengths: list[np.ndarray] = []  # for each count from 2 on, the length of that path's last step [N]
    for count in range(1, min(most, N) + 1):
        if count > 1:
            options = total[origin.clip(0)] + arriving
            lengths.append(options.argmin(axis=1))
            total = options.min(axis=1)
        end = int((total + last).argmin())
        if count < least or not np.isfinite(total[end] + last[end]):
            continue
        path = [end]
        for length in reversed(lengths):
            path.append(path[-1] - int(length[path[-1]]))
        yield np.array(path[::-1])
