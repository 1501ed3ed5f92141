"""Adaptive keyframe selection: dense keyframes where content changes, sparse where it does not.

AdaFlow (arXiv 2502.05433). There are two ways to choose by similarity: by threshold (the paper's walk along the
timeline) and by budget (the contiguous segments and representatives with the greatest total similarity). The refinement
takes only the number of keyframes from these: it places them where the propagation residual is least, and adds more
while a frame's residual is over a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from adaflow_core.config import METHODS, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.planning.residual import NO_FRAMES, PairCosts, PropagationResidual, shortest_paths
from adaflow_core.planning.similarity import Compare, FrameSimilarity
from adaflow_core.progress import Monitor
from adaflow_core.types import Segments

# Unevenness in dB below which keyframes are evenly spaced: what another spacing would gain is within the error of its
# prediction. Even motion of the drawn world has 0 to 1.0 dB, uneven motion 5.2 to 6.1 dB.
LEAST_UNEVENNESS = 2.0
PART = 32  # frames compared with a keyframe at a time; their features are all in memory


def threshold_starts(
    compare: Compare, T: int, cuts: np.ndarray, *, mean: float, window: float, max_segment: int, lookahead: int = 16
) -> np.ndarray:
    """Return the first frame of each segment, [K]: the first that is too unlike the previous segment's first frame.

    A frame is too unlike if its mean similarity is below `mean` or that of its worst window below `window`. Segments
    also end at cuts and after `max_segment` frames. `lookahead` frames are compared at a time.
    """
    starts = [0]
    while starts[-1] < T:
        anchor = starts[-1]
        end = min(next(border for border in [*map(int, cuts), T] if border > anchor), anchor + max_segment)
        for begin in range(anchor + 1, end, lookahead):
            ahead = np.arange(begin, min(begin + lookahead, end))
            means, windows = compare(anchor, ahead)
            unlike = ahead[(means < mean) | (windows < window)]
            if len(unlike):
                end = int(unlike[0])
                break
        starts.append(end)
    return np.array(starts[:-1], dtype=np.int64)


def representatives(
    compare: Compare, starts: np.ndarray, T: int, candidates: int = 5, witnesses: int = 9
) -> np.ndarray:
    """Return the frame most similar to each segment, [K].

    `candidates` frames, evenly spread over the segment, are compared with `witnesses` frames of it.
    """
    keyframes = []
    for start, end in pairwise([*starts, T]):
        members = np.unique(np.linspace(start, end - 1, witnesses).round().astype(np.int64))
        options = np.unique(np.linspace(start, end - 1, candidates + 2).round().astype(np.int64)[1:-1])
        totals = [compare(int(option), members)[0].sum() for option in options] if len(options) > 1 else [0.0]
        keyframes.append(options[int(np.argmax(totals))])
    return np.array(keyframes, dtype=np.int64)


def segment_gains(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best total similarity of every segment, and its representative: [N, B] each.

    `similarity[i, d]` [N, B] compares frame i with frame i + d (nan past the end). Element [i, d] of the results is for
    the segment of d + 1 frames from i: the largest total similarity of its frames to one of them, and the index of that
    one (-inf and -1 past the end).
    """
    N, B = similarity.shape
    gains = np.full((N, B), -np.inf)
    best = np.full((N, B), -1, dtype=np.int64)
    for i in range(N):
        L = min(B, N - i)
        # square[r, f]: the band's rows from i on, folded into a small symmetric table.
        square = np.zeros((L, L))
        for r in range(L):
            square[r, r:] = similarity[i + r, : L - r]
            square[r:, r] = square[r, r:]
        totals = np.where(np.tri(L, dtype=bool).T, np.cumsum(square, axis=1), -np.inf)  # [r, end], r <= end
        gains[i, :L] = totals.max(axis=0)
        best[i, :L] = i + totals.argmax(axis=0)
    return gains, best


def budget_segments(similarity: np.ndarray, count: int, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (starts, keyframes) of the `count` contiguous segments with the greatest total similarity, or None.

    `similarity` is a band as in `segment_gains`; no segment spans a cut. The result is None if the band is too narrow,
    or the cuts are too many, for `count` segments.
    """
    N, B = similarity.shape
    gains, best = segment_gains(similarity)
    i, d = np.indices((N, B))
    shot = np.searchsorted(cuts, np.arange(N + B), side="right")
    gains[shot[i] != shot[i + d]] = -np.inf
    # The segments are the steps of a shortest path along the borders 0..N.
    ends, steps = np.full((2, N + 1), np.inf), np.full((N + 1, B + 1), np.inf)
    ends[0, 0] = ends[1, N] = 0.0
    steps[:N, 1:] = -gains
    borders = next(shortest_paths(ends[0], steps, ends[1], count + 1, count + 1), None)
    if borders is None:
        return None
    return borders[:-1], best[borders[:-1], np.diff(borders) - 1]


def place_borders(compare: Compare, keyframes: np.ndarray, cuts: np.ndarray, reach: int | None = None) -> np.ndarray:
    """Return the segment starts [K] for given keyframes.

    The border between two neighbouring keyframes is the cut between them, if any, else the one with the greatest total
    similarity of frames to their keyframes. `reach` limits the search to that many frames around the middle.
    """
    starts = [0]
    for left, right in pairwise(keyframes.tolist()):
        between = cuts[(left < cuts) & (cuts <= right)]
        middle = (left + right + 1) // 2
        low, high = (left + 1, right) if reach is None else (max(left + 1, middle - reach), min(right, middle + reach))
        if len(between) or low == high:
            starts.append(int(between[0]) if len(between) else right)
            continue
        options = np.arange(low, high)  # frames that either side may take
        parts = np.array_split(options, -(-len(options) // PART))
        leads = [compare(left, part)[0] - compare(right, part)[0] for part in parts]
        gain = np.cumsum(np.concatenate([[0.0], *leads]))
        # Ties go to the border nearest the middle.
        near = -np.abs(np.arange(low, high + 1) - middle) * 1e-9
        starts.append(low + int(np.argmax(gain + near)))
    return np.array(starts, dtype=np.int64)


def serve_every_shot(keyframes: np.ndarray, cuts: np.ndarray, T: int) -> np.ndarray:
    """Move keyframes so that every shot has one; their number stays the same.

    A shot without a keyframe gets one in its middle. In exchange, one of the two closest keyframes that share a shot
    is dropped.
    """
    for start, end in pairwise([0, *map(int, cuts), T]):
        if not ((keyframes >= start) & (keyframes < end)).any():
            shots = np.searchsorted(cuts, keyframes, side="right")
            gaps = np.where(np.diff(shots) == 0, np.diff(keyframes), T)
            kept = np.delete(keyframes, int(gaps.argmin()) + 1)
            keyframes = np.sort(np.append(kept, (start + end - 1) // 2))
    return keyframes


def even_segments(T: int, count: int, cuts: np.ndarray) -> Segments:
    """Return evenly spaced segments, each with its keyframe in the middle: the `uniform` baseline.

    No segment spans a cut. Each shot gets at least one keyframe, and more in proportion to its length.
    """
    borders = np.concatenate([[0], cuts, [T]]).astype(np.int64)
    lengths = np.diff(borders)
    share = np.ones(len(lengths), dtype=np.int64)
    while share.sum() < min(count, T):
        room = np.where(share < lengths, lengths / share, -1.0)
        share[int(room.argmax())] += 1
    starts = np.concatenate([b + np.arange(k) * n // k for b, n, k in zip(borders[:-1], lengths, share, strict=True)])
    ends = np.append(starts[1:], T)
    return Segments(starts, (starts + ends - 1) // 2, cuts, T)


class _Found(NamedTuple):
    """Keyframes that `_fewest_that_serve` found, and what they were chosen by."""

    keyframes: np.ndarray  # [K] int64
    costs: PairCosts
    unlike: np.ndarray  # frames added to the evenly spaced sample, because they are unlike all in it; ascending
    serve: bool  # whether they leave no frame over the threshold


def refine_keyframes(
    residual: PropagationResidual, count: int, most: int, threshold: float, monitor: Monitor
) -> np.ndarray:
    """Return the keyframes with the least total residual, [K] int64.

    K starts at `count` and grows up to `most` until no frame's residual is over `threshold`. If the video changes
    evenly, K evenly spaced keyframes are returned instead, unless only these leave a frame over it.
    """
    found = _fewest_that_serve(residual, count, most, threshold, monitor)
    return _even_if_as_good(residual, found, threshold, monitor)


def _fewest_that_serve(
    residual: PropagationResidual, count: int, most: int, threshold: float, monitor: Monitor
) -> _Found:
    """Find the fewest keyframes, `count` to `most`, that leave no frame over the threshold; else the last tried."""
    frame_ids, unlike = np.arange(residual.T), NO_FRAMES
    while True:
        for keyframes, worst, costs in residual.best_keyframes(count, most, monitor, unlike):
            if worst > threshold**2:
                continue
            # The costs cover only the sampled frames, so the residual of all frames is checked too.
            errors = residual(keyframes, frame_ids, monitor) if costs.stride > 1 else NO_FRAMES
            if errors.max(initial=0.0) <= threshold:
                return _Found(keyframes, costs, unlike, serve=True)
            # More keyframes from the same sample do not help a frame that is unlike all in it, such as a flash. So it
            # joins the sample, with its two neighbours, unlike it in turn; the sample grows by at most half.
            missed = residual.missed(costs, np.flatnonzero(errors > threshold), threshold, monitor)
            room = (len(costs.frame_ids) - len(unlike)) // 2 - len(unlike)
            joining = missed[: max(0, room // 3), None] + [-1, 0, 1]
            if joining.size:
                unlike = np.union1d(unlike, joining.clip(0, residual.T - 1))
                count = len(keyframes)
                break
        else:
            return _Found(keyframes, costs, unlike, serve=False)


def _even_if_as_good(residual: PropagationResidual, found: _Found, threshold: float, monitor: Monitor) -> np.ndarray:
    """Replace the found keyframes with evenly spaced ones if the video changes evenly and they serve as well.

    They do if they leave no frame over the threshold. If the found ones leave some themselves, the even ones replace
    them too, unless frames had to be added to the sample.
    """
    if found.costs.unevenness >= LEAST_UNEVENNESS:
        return found.keyframes
    even = even_segments(residual.T, len(found.keyframes), residual.cuts).keyframes
    if not found.serve:
        return found.keyframes if len(found.unlike) else even
    return even if residual(even, np.arange(residual.T), monitor).max() <= threshold else found.keyframes


class KeyframeSelector:
    """Selects one video's keyframes by `config`; `notes` collects what the user should know about them."""

    def __init__(
        self, config: PlanConfig, similarity: FrameSimilarity, residual: PropagationResidual, monitor: Monitor
    ) -> None:
        self.config, self.similarity, self.residual, self.monitor = config, similarity, residual, monitor
        self.T, self.cuts = residual.T, residual.cuts
        self.compare: Compare = partial(similarity.compare, config.scales, config.both_directions)
        self.notes: list[str] = []

    def select(self) -> Segments:
        if self.config.given_keyframes:
            return self._given()
        spacing = METHODS[self.config.method].spacing
        if spacing == "every frame":
            return even_segments(self.T, self.T, self.cuts)
        if spacing == "even":
            # Without a given number, one keyframe per 8 frames, as in TokenFlow (arXiv 2307.10373).
            return even_segments(self.T, self._requested() or -(-self.T // 8), self.cuts)
        return self._by_similarity() if self.config.refinement == "none" else self._by_residual()

    def _given(self) -> Segments:
        """Use the given keyframes, and the middle frame of each shot that has none of them."""
        keyframes = list(self.config.given_keyframes)
        if keyframes[-1] >= self.T:  # checked first, as it may be too large for int64
            raise AdaFlowError(f"keyframes_at names frame {keyframes[-1]}; the plan has frames 0 to {self.T - 1}")
        given = np.array(keyframes, np.int64)
        if self.config.keyframes is not None:
            self.notes.append(f"the keyframes are given, so that the number {self.config.keyframes} does not count")
        for start, end in pairwise([0, *map(int, self.cuts), self.T]):
            if not ((given >= start) & (given < end)).any():
                keyframes.append((start + end - 1) // 2)
                self.notes.append(f"the shot from frame {start} had no keyframe; its middle was made one")
        given = np.array(sorted(keyframes), np.int64)
        return self._around(given)

    def _requested(self) -> int | None:
        """Return the number of keyframes asked for, within what the video allows; None: no number was given."""
        count, shots = self.config.keyframes, len(self.cuts) + 1
        if count is None:
            return None
        if count > self.T:
            self.notes.append(f"{count} keyframes were asked for; the video has {self.T} frames")
        elif count < shots:
            self.notes.append(f"{count} keyframes were asked for; {shots} shots need one each")
        return max(shots, min(count, self.T))

    def _by_similarity(self) -> Segments:
        """Choose by the paper's walk; by budget if a number is given or the walk finds more than are allowed."""
        count = self._requested()
        if count is None:
            starts = self._walk()
            count = self._allowed(len(starts))
            if count == len(starts):
                with self._compared("similarity") as compare:
                    return Segments(starts, representatives(compare, starts, self.T), self.cuts, self.T)
        return self._by_budget(count)

    def _by_budget(self, count: int) -> Segments:
        """Run `budget_segments` on a video of any length; if segments are long, on every `stride`-th frame only."""
        T, cuts, config = self.T, self.cuts, self.config
        if count == T:
            return even_segments(T, T, cuts)
        # The band reaches three times the average segment; the stride keeps it narrow.
        reach, found = min(T, max(16, 3 * T // count)), None
        while found is None:
            stride = max(1, min(-(-reach // 64), T // (2 * count)))
            band = self.similarity.band(
                config.scales, config.both_directions, stride, -(-reach // stride), self.monitor
            )
            found = budget_segments(band, count, np.unique(-(-cuts // stride)))
            reach = min(T, 2 * reach)
        starts, keyframes = found[0] * stride, found[1] * stride
        if stride > 1:
            keyframes = serve_every_shot(keyframes, cuts, T)
            return self._around(keyframes, reach=2 * stride)
        return Segments(starts, keyframes, cuts, T)

    def _by_residual(self) -> Segments:
        """Choose the keyframes with the least propagation residual.

        Without a requested number there are as many as the walk finds; the refinement "split" may add more.
        """
        assert self.config.residual is not None
        count = most = self._requested()
        if count is None or most is None:
            count = self._allowed(len(self._walk()))
            most = self._limit if self.config.refinement == "split" else count
        keyframes = refine_keyframes(self.residual, count, most, self.config.residual, self.monitor)
        K = len(keyframes)
        # Only if the refinement was stopped by the limit.
        left = self._what_is_left(keyframes) if count < K == most < self.T else None
        if left is not None:
            self.notes.append(left)
        elif 2 < K < self.T and np.array_equal(keyframes, even_segments(self.T, K, self.cuts).keyframes):
            self.notes.append("the video changes evenly, so that its keyframes lie at even distances")
        return self._around(keyframes)

    def _what_is_left(self, keyframes: np.ndarray) -> str | None:
        """Return a note on the worst frame if its residual is over the threshold, else None."""
        assert self.config.residual is not None
        errors = self.residual(keyframes, np.arange(self.T), self.monitor)
        worst = int(errors.argmax())
        if errors[worst] <= self.config.residual:
            return None
        return (
            f"the video changes faster than the {len(keyframes)} keyframes that are allowed follow it: the "
            f"propagation residual of frame {worst} is {errors[worst]:.2f} for {self.config.residual:g}; "
            "a larger max_keyframes helps"
        )

    def _walk(self) -> np.ndarray:
        mean, window, max_segment = self.config.similarity, self.config.window_similarity, self.config.max_segment
        assert mean is not None and window is not None
        with self._compared("similarity") as compare:
            return threshold_starts(compare, self.T, self.cuts, mean=mean, window=window, max_segment=max_segment)

    def _around(self, keyframes: np.ndarray, reach: int | None = None) -> Segments:
        """Return the segments around given keyframes; for `reach` see `place_borders`."""
        with self._compared("borders") as compare:
            return Segments(place_borders(compare, keyframes, self.cuts, reach), keyframes, self.cuts, self.T)

    @contextmanager
    def _compared(self, name: str) -> Iterator[Compare]:
        """Yield a `compare` that advances a stage to the last frame compared."""
        with self.monitor.stage(name, self.T) as stage:

            def compare(anchor: int, frame_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                found = self.compare(anchor, frame_ids)
                stage.advance(max(0, int(frame_ids[-1]) + 1 - stage.done))
                return found

            yield compare
            stage.advance(self.T - stage.done)

    @property
    def _limit(self) -> int:
        assert self.config.max_keyframes is not None
        return max(self.config.max_keyframes, len(self.cuts) + 1)

    def _allowed(self, wanted: int) -> int:
        if wanted > self._limit:
            self.notes.append(f"the thresholds ask for {wanted} keyframes; {self._limit} were allowed")
        return min(wanted, self._limit)
