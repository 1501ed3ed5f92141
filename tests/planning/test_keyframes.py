"""Keyframe selection against naive walks and brute force."""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from adaflow_core.config import PlanConfig
from adaflow_core.planning import similarity as similarity_module
from adaflow_core.planning.keyframes import (
    LEAST_UNEVENNESS,
    PART,
    KeyframeSelector,
    budget_segments,
    even_segments,
    place_borders,
    refine_keyframes,
    representatives,
    segment_gains,
    threshold_starts,
)
from adaflow_core.planning.residual import PropagationResidual
from adaflow_core.planning.similarity import Compare, FrameSimilarity
from adaflow_core.progress import Monitor
from adaflow_core.types import Grid, Segments
from helpers.made import drifting, latents_of, shot_of

GRID = Grid(4, 3)
NONE = np.array([], dtype=np.int64)


def symmetric(T: int, seed: int = 0) -> np.ndarray:
    """[T, T] random similarities, 1 on the diagonal."""
    table = np.random.default_rng(seed).random((T, T))
    table = (table + table.T) / 2
    np.fill_diagonal(table, 1)
    return table


def look_up(means: np.ndarray, windows: np.ndarray | None = None) -> Compare:
    other = means if windows is None else windows
    return lambda anchor, frames: (means[anchor, frames], other[anchor, frames])


def band_of(table: np.ndarray, width: int) -> np.ndarray:
    T = len(table)
    return np.array([[table[i, i + d] if i + d < T else np.nan for d in range(width)] for i in range(T)])


def check(segments: Segments) -> None:
    """What must hold of any choice."""
    assert segments.starts[0] == 0 and (segments.lengths > 0).all()
    assert (segments.starts <= segments.keyframes).all() and (segments.keyframes < segments.ends).all()
    assert set(segments.cuts) <= set(segments.starts)
    assert (shot_of(segments, segments.starts) == shot_of(segments, segments.keyframes)).all()


# --- by threshold -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cuts", [(), (1,), (7, 8, 20)])
@pytest.mark.parametrize("lookahead", [1, 5, 16])
def test_the_threshold_walk(seed: int, cuts: tuple[int, ...], lookahead: int) -> None:
    T, mean, window, longest = 30, 0.3, 0.2, 6
    means, windows = symmetric(T, seed), symmetric(T, seed + 100)
    expected = [0]
    for t in range(1, T):
        anchor = expected[-1]
        unlike = means[anchor, t] < mean or windows[anchor, t] < window
        if unlike or t in cuts or t - anchor >= longest:
            expected.append(t)
    found = threshold_starts(
        look_up(means, windows), T, np.array(cuts, dtype=np.int64),
        mean=mean, window=window, max_segment=longest, lookahead=lookahead,
    )  # fmt: skip
    assert found.tolist() == expected


def test_representatives_are_the_most_similar_of_the_candidates() -> None:
    table = symmetric(20)
    starts = np.array([0, 1, 3, 12])
    keyframes = representatives(look_up(table), starts, 20, candidates=100, witnesses=100)
    for start, end, keyframe in zip(starts, [1, 3, 12, 20], keyframes, strict=True):
        totals = {f: table[f, start:end].sum() for f in range(start, end)}
        assert keyframe == max(totals, key=lambda f: totals[f])


# --- by budget --------------------------------------------------------------------------------------


def best_of(table: np.ndarray, start: int, end: int) -> tuple[float, int]:
    totals = [table[f, start:end].sum() for f in range(start, end)]
    return max(totals), start + int(np.argmax(totals))


@pytest.mark.parametrize("width", [1, 4, 9])
def test_segment_gains(width: int) -> None:
    table = symmetric(9)
    gains, best = segment_gains(band_of(table, width))
    for i, d in np.ndindex(9, width):
        if i + d >= 9:
            assert gains[i, d] == -np.inf and best[i, d] == -1
        else:
            total, keyframe = best_of(table, i, i + d + 1)
            assert gains[i, d] == pytest.approx(total) and best[i, d] == keyframe


@pytest.mark.parametrize("T", [1, 4, 9])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("cuts", [(), (3,), (2, 3, 7)])
@pytest.mark.parametrize("width", [3, 9])
def test_the_budget_against_all_segmentations(T: int, count: int, cuts: tuple[int, ...], width: int) -> None:
    table = symmetric(T, seed=T + count)
    cuts = tuple(c for c in cuts if c < T)
    best = (-np.inf, (0,))
    for inner in combinations(range(1, T), count - 1):
        borders = [0, *inner, T]
        if set(cuts) <= set(inner) and max(b - a for a, b in pairwise(borders)) <= width:
            best = max(best, (sum(best_of(table, a, b)[0] for a, b in pairwise(borders)), (0, *inner)))
    found = budget_segments(band_of(table, width), count, np.array(cuts, dtype=np.int64))
    if best[0] == -np.inf:
        assert found is None
        return
    assert found is not None
    starts, keyframes = found
    assert starts.tolist() == list(best[1])
    assert keyframes.tolist() == [best_of(table, a, b)[1] for a, b in pairwise([*starts, T])]


@pytest.mark.parametrize(("T", "count"), [(24, 1), (24, 5), (24, 24), (24, 40), (300, 3), (300, 8)])
def test_a_choice_by_budget_has_the_number_asked_for(T: int, count: int) -> None:
    cuts = np.array([10]) if count > 1 else NONE
    segments = choose(T, count, cuts)
    assert len(segments) == min(count, T)
    check(segments)


def test_a_thinned_choice_by_budget_gets_its_borders_from_all_frames() -> None:
    """Within two of the sample's distances around the middle of two keyframes."""
    segments, similarity = choose(300, 4, NONE), FrameSimilarity(drifting(300, GRID), "uniform")
    assert not (segments.keyframes % 4).any(), "every fourth frame is in the sample"
    starts = place_borders(partial(similarity.compare, (1,), True), segments.keyframes, NONE, reach=8)
    middles = (segments.keyframes[:-1] + segments.keyframes[1:] + 1) // 2
    assert segments.starts.tolist() == starts.tolist() != [0, *middles]


def test_a_shot_that_thinning_skips_still_gets_its_keyframe() -> None:
    # One frame between two cuts, in a timeline of which about every fifth frame is sampled.
    for lone in (151, 152, 153, 154):
        segments = choose(300, 4, np.array([lone, lone + 1]))
        assert len(segments) == 4
        check(segments)
    segments = choose(300, 4, np.array([150, 299]))
    assert len(segments) == 4
    check(segments)


def choose(T: int, count: int, cuts: np.ndarray) -> Segments:
    features = drifting(T, GRID, cuts=tuple(cuts))
    residual = PropagationResidual(features, latents_of(features), cuts)
    config = PlanConfig(keyframes=count, refinement="none", both_directions=True)
    return KeyframeSelector(config, FrameSimilarity(features, "uniform"), residual, Monitor()).select()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of frames each comparison took, as they come."""
    sizes: list[int] = []
    plain = similarity_module.match_maps

    def counted(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(first))
        return plain(first, second)

    monkeypatch.setattr(similarity_module, "match_maps", counted)
    return sizes


@pytest.mark.parametrize("count", [4, 20])
def test_the_number_of_comparisons_grows_with_the_length(compared: list[int], count: int) -> None:
    numbers = []
    for T in (240, 480, 960):
        before = sum(compared)
        choose(T, count * T // 240, NONE)
        numbers.append(sum(compared) - before)
    first, second = np.diff(numbers)  # what 240 and 480 frames more take
    assert first > 100 and second == pytest.approx(2 * first, rel=0.2)


@pytest.mark.parametrize(("T", "count"), [(1200, 6), (1200, 2)])  # of two, each segment is longer than `max_segment`
def test_a_fixed_budget_is_not_quadratic_in_the_length(compared: list[int], T: int, count: int) -> None:
    choose(T, count, NONE)
    assert 0 < sum(compared) < 6 * T


def test_the_walk_compares_each_frame_a_few_times(compared: list[int]) -> None:
    numbers = []
    for T in (240, 480, 960):
        similarity = FrameSimilarity(drifting(T, GRID), "uniform")
        walked = partial(similarity.compare, (1,), True)
        before = sum(compared)
        threshold_starts(walked, T, NONE, mean=0.8, window=0.6, max_segment=400)
        numbers.append(sum(compared) - before)
    first, second = np.diff(numbers)  # what 240 and 480 frames more take
    assert first > 100 and second == pytest.approx(2 * first, rel=0.2)


# --- borders and refinement -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reach", [None, 2])
def test_borders_are_the_best_of_all(seed: int, reach: int | None) -> None:
    T, keyframes = 20, [2, 3, 9, 15, 19]
    table = symmetric(T, seed)
    starts = place_borders(look_up(table), np.array(keyframes), np.array([12]), reach=reach)
    for start, (left, right) in zip(starts[1:], pairwise(keyframes), strict=True):
        middle = (left + right + 1) // 2
        if left < 12 <= right:
            assert start == 12
            continue
        totals = {
            border: table[left, left + 1 : border].sum() + table[right, border:right].sum()
            for border in range(left + 1, right + 1)
            if reach is None or abs(border - middle) <= reach
        }
        assert start == max(totals, key=lambda border: totals[border])


def test_a_long_stretch_is_compared_in_parts() -> None:
    table, sizes = symmetric(100), []

    def compare(anchor: int, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(frames))
        return table[anchor, frames], table[anchor, frames]

    _, start = place_borders(compare, np.array([1, 98]), NONE)
    totals = [table[1, 2:border].sum() + table[98, border:98].sum() for border in range(2, 99)]
    assert start == 2 + int(np.argmax(totals)) and max(sizes) <= PART and sum(sizes) == 2 * 96


def test_equal_borders_lie_in_the_middle() -> None:
    starts = place_borders(look_up(np.ones((20, 20))), np.array([2, 11, 16]), NONE)
    assert starts.tolist() == [0, 7, 14]


STILL_THEN_MOVING = np.where(np.arange(48) >= 36, 0.3, 0.0)


def paced(pace: float | np.ndarray, cuts: tuple[int, ...] = ()) -> PropagationResidual:
    features = drifting(48, GRID, cuts=cuts, pace=pace)
    return PropagationResidual(features, latents_of(features), np.array(cuts, dtype=np.int64))


@pytest.mark.parametrize("K", [2, 3, 5])
def test_keyframes_leave_a_rest_for_where_things_move(K: int) -> None:
    residual = paced(STILL_THEN_MOVING)
    keyframes = refine_keyframes(residual, K, K, 0.0, Monitor())
    assert len(keyframes) == K and (keyframes >= 35).sum() >= K - 1
    even, chosen = (residual(k, np.arange(48), Monitor()) for k in (even_segments(48, K, NONE).keyframes, keyframes))
    assert (chosen**2).sum() < 0.8 * (even**2).sum()


@pytest.mark.parametrize("cuts", [(), (30,)])
def test_an_even_film_gets_even_keyframes(cuts: tuple[int, ...]) -> None:
    keyframes = refine_keyframes(paced(0.1, cuts), 6, 6, 0.0, Monitor())
    assert keyframes.tolist() == even_segments(48, 6, np.array(cuts, dtype=np.int64)).keyframes.tolist()


def test_even_keyframes_leave_no_frame_that_others_as_many_serve() -> None:
    """As where a film that changes evenly all but its end changes faster there."""
    residual, frames = paced(np.where(np.arange(48) >= 36, 0.23, 0.1)), np.arange(48)
    chosen = residual.best_keyframes(3, 3, Monitor())
    best = next(keyframes for keyframes, _, costs in chosen if costs.unevenness < LEAST_UNEVENNESS)
    even = even_segments(48, 3, NONE).keyframes
    worst = [float(residual(keyframes, frames, Monitor()).max()) for keyframes in (best, even)]
    assert worst[0] < worst[1]
    for threshold, expected in ((sum(worst) / 2, best), (1.01 * worst[1], even), (0.9 * worst[0], even)):
        assert refine_keyframes(residual, 3, 3, threshold, Monitor()).tolist() == expected.tolist()


def test_refinement_adds_keyframes_until_every_frame_is_served() -> None:
    residual = paced(STILL_THEN_MOVING)
    few = refine_keyframes(residual, 2, 2, 0.0, Monitor())
    worst = float(residual(few, np.arange(48), Monitor()).max())
    more = refine_keyframes(residual, 2, 40, 0.7 * worst, Monitor())
    assert 2 < len(more) < 40 and residual(more, np.arange(48), Monitor()).max() <= 0.7 * worst
    assert len(refine_keyframes(residual, 2, 40, 1.01 * worst, Monitor())) == 2
    assert len(refine_keyframes(residual, 2, 4, 0.0, Monitor())) == 4  # as many as are allowed


@pytest.mark.parametrize(
    ("pace", "most", "noted"), [(STILL_THEN_MOVING, 4, True), (STILL_THEN_MOVING, 40, False), (0.1, 4, True)]
)
def test_what_the_keyframes_that_are_allowed_leave_is_told(pace: float | np.ndarray, most: int, noted: bool) -> None:
    config = PlanConfig(similarity=-1.0, window_similarity=-1.0, residual=0.05, max_keyframes=most)
    similarity, residual = FrameSimilarity(drifting(48, GRID, pace=pace), "uniform"), paced(pace)
    selector = KeyframeSelector(config, similarity, residual, Monitor())
    keyframes = selector.select().keyframes
    assert (len(keyframes) == 4) == noted
    assert any("a larger max_keyframes helps" in note for note in selector.notes) == noted
    if noted:
        errors = residual(keyframes, np.arange(48), Monitor())
        (note,) = selector.notes  # nor is it said that it changes evenly
        assert f"of frame {errors.argmax()} is {errors.max():.2f} for 0.05" in note


# Every fifth frame of 300 is in the sample for four keyframes: of these the first is, most others are not.
@pytest.mark.parametrize("flashes", [(150,), (151,), (151, 152), (151, 152, 153, 154), (61, 151, 298)])
def test_a_flash_takes_the_keyframes_that_it_needs_and_no_others(flashes: tuple[int, ...]) -> None:
    features = drifting(300, GRID, pace=0.01)
    latents = latents_of(features)
    plain = refine_keyframes(PropagationResidual(features, latents, NONE), 4, 32, 0.35, Monitor())
    latents[list(flashes)] *= -1
    residual = PropagationResidual(features, latents, NONE)
    assert residual.costs(4, Monitor()).stride == 5
    keyframes = refine_keyframes(residual, 4, 32, 0.35, Monitor())
    assert residual(keyframes, np.arange(300), Monitor()).max() <= 0.35
    assert len(keyframes) <= len(plain) + 3 * len(flashes)


def test_what_more_keyframes_do_not_serve_leaves_them_where_they_serve_most() -> None:
    """More flashes than keyframes: those that get one keep it, though the film between them changes evenly."""
    features, flashes = drifting(600, GRID, pace=0.05), np.arange(31, 600, 60)
    latents = latents_of(features)
    latents[flashes] *= 0.3
    residual = PropagationResidual(features, latents, NONE)
    keyframes = refine_keyframes(residual, 4, 12, 0.35, Monitor())
    assert len(keyframes) == 12 and len(np.intersect1d(keyframes, flashes)) >= 3
    even = even_segments(600, 12, NONE).keyframes
    errors, of_even = (residual(k, np.arange(600), Monitor()).astype(np.float64) for k in (keyframes, even))
    assert (errors**2).sum() < (of_even**2).sum()


def test_many_more_keyframes_than_asked_for_are_chosen_from_a_finer_sample() -> None:
    residual = paced(np.where(np.arange(48) % 24 < 12, 0.0, 0.3))
    residual.pairs = 100  # a sample of every fifth frame, for one keyframe
    coarse = residual.costs(1, Monitor())
    assert np.diff(coarse.frame_ids).max() > 2
    keyframes = refine_keyframes(residual, 1, 20, 0.0, Monitor())
    assert len(keyframes) == 20 and not set(keyframes) <= set(coarse.frame_ids)


# --- the baseline -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "count", "cuts"), [(16, 4, ()), (17, 5, (4,)), (9, 9, (1, 2)), (5, 99, ())])
def test_even_segments(frames: int, count: int, cuts: tuple[int, ...]) -> None:
    segments = even_segments(frames, count, np.array(cuts, dtype=np.int64))
    check(segments)
    assert len(segments) == min(frames, count)
    for shot in range(len(cuts) + 1):
        lengths = segments.lengths[shot_of(segments, segments.starts) == shot]
        assert len(lengths) and lengths.max() - lengths.min() <= 1
    middle = (segments.starts + segments.ends - 1) / 2
    assert abs(segments.keyframes - middle).max() <= 0.5


def test_a_longer_shot_gets_more_of_the_even_keyframes() -> None:
    segments = even_segments(40, 5, np.array([8]))
    assert np.bincount(shot_of(segments, segments.keyframes)).tolist() == [1, 4]
