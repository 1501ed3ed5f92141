"""Adaptive keyframe selection: dense keyframes where content changes, sparse where it does not.

AdaFlow (arXiv 2502.05433). Two ways to choose: by threshold (the paper's walk along the timeline) and by
budget (the contiguous segments and representatives of greatest total similarity). Then a refinement moves
keyframes, or adds some, where propagation would serve a frame badly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from adaflow_core.similarity import Compare, FrameSimilarity
from adaflow_core.types import Monitor, Segments

DISPENSABLE = 4  # keyframes that are tried where one is to leave its place
Residual = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(keyframes, frames) -> how badly propagation from these keyframes serves each of these frames."""


def detect_cuts(adjacent: np.ndarray, threshold: float) -> np.ndarray:
    """Frames that begin a new shot: a similarity to the frame before that is low, and lower than around it.

    Fast motion keeps the similarity low for a while; a cut is a lone drop.
    """
    cuts = []
    for t in range(1, len(adjacent)):
        around = np.concatenate([adjacent[max(1, t - 3) : t], adjacent[t + 1 : t + 4]])
        usual = float(np.median(around)) if len(around) else 1.0
        if adjacent[t] < threshold and adjacent[t] < usual - 0.5 * (1 - threshold):
            cuts.append(t)
    return np.array(cuts, dtype=np.int64)


def threshold_starts(
    compare: Compare,
    frames: int,
    cuts: np.ndarray,
    *,
    mean: float,
    window: float,
    max_segment: int,
    lookahead: int = 16,
) -> np.ndarray:
    """First frames of the segments: a new one begins at the first frame too unlike the segment's anchor.

    The next anchor is that very frame. `lookahead` frames are compared at a time.
    """
    starts = [0]
    borders = [*map(int, cuts), frames]
    position = 1
    while position < frames:
        anchor = starts[-1]
        end = min(next(c for c in borders if c > anchor), anchor + max_segment)
        if position < end:
            ahead = np.arange(position, min(position + lookahead, end))
            means, windows = compare(anchor, ahead)
            unlike = np.flatnonzero((means < mean) | (windows < window))
            if not len(unlike):
                position = int(ahead[-1]) + 1
                continue
            end = int(ahead[unlike[0]])
        if end < frames:
            starts.append(end)
        position = end + 1
    return np.array(starts, dtype=np.int64)


def representatives(
    compare: Compare,
    starts: np.ndarray,
    frames: int,
    candidates: int = 5,
    witnesses: int = 9,
) -> np.ndarray:
    """For each segment the frame most similar to the rest of it, among evenly spread candidates."""
    keyframes = []
    for start, end in zip(starts, [*starts[1:], frames], strict=True):
        members = np.unique(np.linspace(start, end - 1, witnesses).round().astype(np.int64))
        options = np.unique(np.linspace(start, end - 1, candidates + 2).round().astype(np.int64)[1:-1])
        if len(options) == 1:
            keyframes.append(options[0])
            continue
        totals = [compare(int(option), members)[0].sum() for option in options]
        keyframes.append(options[int(np.argmax(totals))])
    return np.array(keyframes, dtype=np.int64)


def segment_gains(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best total similarity of every segment, and its representative.

    `similarity[i, d]` compares frame i with frame i + d (nan past the end), [N, B]. Returns [N, B] arrays
    for the segment from i of length d + 1: the largest sum over its frames of their similarity to one of
    them, and which one (-inf and -1 past the end).
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
    """Exactly `count` contiguous segments of greatest total similarity: (starts, keyframes), or None.

    Dynamic programming over the band `similarity` [N, B]; no segment spans a cut. None where the band is
    too narrow or the cuts too many for `count` segments.
    """
    N, B = similarity.shape
    gains, best = segment_gains(similarity)
    for cut in cuts:
        for i in range(max(0, cut - B + 1), cut):
            gains[i, cut - i :] = -np.inf
    # total[j]: best sum for frames 0..j-1 in k segments; choice[k][j]: length of the last of them.
    total = np.full(N + 1, -np.inf)
    total[0] = 0.0
    ends = np.arange(1, N + 1)
    lengths = np.arange(1, B + 1)
    first = ends[:, None] - lengths[None, :]  # [N, B] start of the last segment
    valid = first >= 0
    last_gain = np.where(valid, gains[first.clip(0), (lengths - 1)[None, :]], -np.inf)
    choice = np.zeros((count, N + 1), dtype=np.int64)
    for k in range(count):
        options = np.where(valid, total[first.clip(0)], -np.inf) + last_gain
        pick = options.argmax(axis=1)
        total = np.concatenate([[-np.inf], options[np.arange(N), pick]])
        choice[k, 1:] = lengths[pick]
    if not np.isfinite(total[N]):
        return None
    starts, end = [], N
    for k in reversed(range(count)):
        end -= int(choice[k, end])
        starts.append(end)
    begin = np.array(starts[::-1], dtype=np.int64)
    size = np.diff(np.append(begin, N))
    return begin, best[begin, size - 1]


def place_borders(
    compare: Compare,
    keyframes: np.ndarray,
    cuts: np.ndarray,
    frames: int,
    reach: int | None = None,
) -> np.ndarray:
    """Segment starts for given keyframes: between two neighbours the border of greatest total similarity.

    A cut between them is the border. `reach` limits the search to that many frames around the middle.
    """
    starts = [0]
    for left, right in pairwise(keyframes):
        between = [int(c) for c in cuts if left < c <= right]
        if between:
            starts.append(between[0])
            continue
        middle = (left + right + 1) // 2
        low = left + 1 if reach is None else max(left + 1, middle - reach)
        high = right if reach is None else min(right, middle + reach)
        options = np.arange(low, high)  # frames that either side may take
        if not len(options):
            starts.append(int(right))
            continue
        taken_left, taken_right = (
            compare(int(left), options)[0],
            compare(int(right), options)[0],
        )
        gain = np.cumsum(np.append(0.0, taken_left - taken_right))
        # Among equals the border nearest the middle.
        near = -np.abs(np.arange(low, high + 1) - middle) * 1e-9
        starts.append(int(low + np.argmax(gain + near)))
    return np.array(starts, dtype=np.int64)


def choose_segments(
    similarity: FrameSimilarity,
    scales: tuple[int, ...],
    both_directions: bool,
    cuts: np.ndarray,
    *,
    count: int | None,
    mean: float,
    window: float,
    max_segment: int,
    monitor: Monitor,
) -> Segments:
    """By budget where `count` is given, else by threshold."""
    T = len(similarity.features.tokens)
    compare = partial(similarity.compare, scales, both_directions)
    if count is None:
        starts = threshold_starts(compare, T, cuts, mean=mean, window=window, max_segment=max_segment)
        return Segments(starts, representatives(compare, starts, T), cuts, T)
    if count >= T:
        return Segments(np.arange(T), np.arange(T), cuts, T)
    # The band reaches three times the average segment; the timeline is thinned so that it stays narrow.
    reach = min(T, max_segment, max(16, 3 * T // count))
    while True:
        stride = max(1, min(-(-reach // 64), T // (2 * count)))
        band = similarity.band(scales, both_directions, stride, -(-reach // stride), monitor)
        found = budget_segments(band, count, np.unique(-(-cuts // stride)))
        if found is not None:
            break
        if reach >= T:
            raise ValueError(f"{count} segments do not fit {len(cuts) + 1} shots in {T} frames")
        reach = min(T, 2 * reach)
    starts, keyframes = found[0] * stride, found[1] * stride
    if stride > 1:
        keyframes = _serve_every_shot(keyframes, cuts, T)
        starts = place_borders(compare, keyframes, cuts, T, reach=2 * stride)
    return Segments(starts, keyframes, cuts, T)


def _serve_every_shot(keyframes: np.ndarray, cuts: np.ndarray, frames: int) -> np.ndarray:
    """As many keyframes, one at least in each shot: one that thinning skipped takes from the two that lie closest."""
    for start, end in pairwise([0, *map(int, cuts), frames]):
        if not ((keyframes >= start) & (keyframes < end)).any():
            shots = np.searchsorted(cuts, keyframes, side="right")
            gaps = np.where(np.diff(shots) == 0, np.diff(keyframes), frames)
            kept = np.delete(keyframes, int(gaps.argmin()) + 1)
            keyframes = np.sort(np.append(kept, (start + end - 1) // 2))
    return keyframes


def refine_segments(
    segments: Segments,
    residual: Residual,
    compare: Compare,
    *,
    threshold: float,
    max_keyframes: int,
    monitor: Monitor,
    rounds: int = 2,
) -> tuple[Segments, np.ndarray]:
    """Split the worst served segment until every frame is served well or the budget is spent, then move.

    Returns the segments and every frame's residual [T]. A new keyframe is the worst frame itself. A move is kept only
    if the residuals of the frames it touches fall in sum; so is a keyframe that leaves a place where it is hardly
    missed for the worst served frame.
    """
    T, cuts = segments.frames, segments.cuts
    keyframes = segments.keyframes.copy()
    values = residual(keyframes, np.arange(T))
    spare = max_keyframes - len(keyframes)
    with monitor.stage("refine", max(spare, 0) + rounds * len(keyframes)) as stage:
        for _ in range(max(spare, 0)):
            worst = int(values.argmax())
            if values[worst] <= threshold:
                break
            keyframes, values = _with(keyframes, values, worst, residual)
            stage.advance()
        for _ in range(rounds):
            moved = False
            for k in np.argsort([-values[_touched(keyframes, i, T)].sum() for i in range(len(keyframes))]):
                found = _moved(keyframes, values, int(k), residual, segments)
                if found is not None:
                    keyframes, values = found
                    moved = True
                stage.advance()
            for _ in range(len(keyframes)):
                monitor.check()
                found = _relocated(keyframes, values, residual, segments)
                if found is None:
                    break
                keyframes, values = found
                moved = True
            if not moved:
                break
    starts = place_borders(compare, keyframes, cuts, T)
    return Segments(starts, keyframes, cuts, T), values


Refined = tuple[np.ndarray, np.ndarray]
"""(keyframes, every frame's residual)"""


def _with(keyframes: np.ndarray, values: np.ndarray, frame: int, residual: Residual) -> Refined:
    """One keyframe more."""
    keyframes = np.sort(np.append(keyframes, frame))
    touched = _touched(keyframes, int(np.searchsorted(keyframes, frame)), len(values))
    values = values.copy()
    values[touched] = residual(keyframes, touched)
    return keyframes, values


def _moved(keyframes: np.ndarray, values: np.ndarray, k: int, residual: Residual, segments: Segments) -> Refined | None:
    """The k-th keyframe by an eighth of its room to either side, as often as that gains; None where it does not."""
    T = len(values)
    touched = _touched(keyframes, k, T)
    left = keyframes[k - 1] + 1 if k else 0
    right = keyframes[k + 1] - 1 if k + 1 < len(keyframes) else T - 1
    shot = segments.shot_of(keyframes[k : k + 1])[0]
    step = max(1, (right - left) // 8)
    best, best_values = keyframes, values[touched]
    for way in (-step, step):
        option = keyframes[k] + way
        while left <= option <= right and segments.shot_of(np.array([option]))[0] == shot:
            tried = keyframes.copy()
            tried[k] = option
            found = residual(tried, touched)
            if found.sum() >= best_values.sum() * (1 - 1e-4):
                break
            best, best_values = tried, found
            option += way
    if best is keyframes:
        return None
    values = values.copy()
    values[touched] = best_values
    return best, values


def _relocated(keyframes: np.ndarray, values: np.ndarray, residual: Residual, segments: Segments) -> Refined | None:
    """The worst served frame in place of the keyframe that is missed least; None where that gains nothing."""
    T = len(values)
    worst = int(values.argmax())
    if worst in keyframes:
        return None
    more, served = _with(keyframes, values, worst, residual)
    shots = segments.shot_of(more)
    spans = {k: _touched(more, k, T) for k in range(len(more)) if more[k] != worst and (shots == shots[k]).sum() > 1}
    best, best_sum = None, values.sum() * (1 - 1e-4)
    # Those whose surroundings are served well are the likely ones.
    for k in sorted(spans, key=lambda k: float(served[spans[k]].sum()))[:DISPENSABLE]:
        fewer, touched = np.delete(more, k), spans[k]
        found = residual(fewer, touched)
        total = served.sum() - served[touched].sum() + found.sum()
        if total < best_sum:
            left = served.copy()
            left[touched] = found
            best, best_sum = (fewer, left), total
    return best


def _touched(keyframes: np.ndarray, k: int, frames: int) -> np.ndarray:
    """The frames whose neighbouring keyframes include the k-th."""
    left = keyframes[k - 1] if k else 0
    right = keyframes[k + 1] + 1 if k + 1 < len(keyframes) else frames
    return np.arange(left, right)


def even_segments(frames: int, count: int, cuts: np.ndarray) -> Segments:
    """Evenly spaced keyframes, each in the middle of its stretch: the `uniform` baseline.

    Cuts are respected as everywhere else; a shot gets keyframes by its length, at least one.
    """
    borders = np.concatenate([[0], cuts, [frames]]).astype(np.int64)
    lengths = np.diff(borders)
    share = np.ones(len(lengths), dtype=np.int64)
    while share.sum() < min(count, frames):
        room = np.where(share < lengths, lengths / share, -1.0)
        share[int(room.argmax())] += 1
    starts = np.concatenate([b + np.arange(k) * n // k for b, n, k in zip(borders[:-1], lengths, share, strict=True)])
    ends = np.append(starts[1:], frames)
    return Segments(starts, (starts + ends - 1) // 2, cuts, frames)
