"""The plan of some of a film's frames: what they take from is what they took from in the film's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adaflow_core.film.stretch import only_frames
from adaflow_core.types import Segments
from helpers.plans import COARSE, FINE, small_plan


def test_the_plan_of_some_frames() -> None:
    plan, rng = small_plan(), np.random.default_rng(0)
    taken = plan.layout.correspondence
    taken = replace(taken, index={g: rng.integers(0, g.n, (20, 1, g.n), dtype=np.int16) for g in (FINE, COARSE)})
    plan = replace(plan, layout=replace(plan.layout, correspondence=taken))
    frames = np.array([0, 3, 7, 9, 10, 13, 15, 17, 19])  # neither a border of a segment nor the cut is among them
    some = only_frames(plan, frames)
    assert some.layout.keyframes.tolist() == some.segments.keyframes.tolist() == [1, 4, 7]
    assert some.segments.starts.tolist() == [0, 3, 6] and some.segments.cuts.tolist() == [6] and some.segments.T == 9
    assert some.segments.segment_of().tolist() == plan.segments.segment_of()[frames].tolist()
    assert some.layout.slimming is plan.layout.slimming
    np.testing.assert_array_equal(some.video.frames, plan.video.frames[frames])
    np.testing.assert_array_equal(some.layout.correspondence.slots, taken.slots[frames])
    for grid in (FINE, COARSE):
        np.testing.assert_array_equal(some.layout.correspondence.index[grid], taken.index[grid][frames])
        np.testing.assert_array_equal(some.layout.correspondence.weights[grid], taken.weights[grid][frames])
    assert len({plan.video.digest, some.video.digest, only_frames(plan, frames[:-1]).video.digest}) == 3


def test_the_plan_of_keyframes_alone_has_a_segment_for_each() -> None:
    plan = small_plan()
    alone = only_frames(plan, plan.layout.keyframes)
    assert alone.segments.starts.tolist() == alone.segments.keyframes.tolist() == [0, 1, 2]
    assert alone.segments.cuts.tolist() == [2] and isinstance(alone.segments, Segments)
