"""Which keyframes a frame takes from, and where its points find their matches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adaflow_core.report.canvas import PLACE
from adaflow_core.report.matches import mark, match_view, matches, shares, shares_sentence, token_at
from adaflow_core.types import Correspondence, Plan
from helpers.plans import FINE, small_plan


def blended() -> Plan:
    """Frame 6 takes from keyframes 0 and 1, a quarter and three quarters; token 5 from their tokens 7 and 9."""
    plan = small_plan()
    T = len(plan.video)
    slots, weights = np.tile([0, 1], (T, 1)), np.zeros((T, 2, FINE.n), np.float16)
    weights[:, 0], weights[:, 1] = 0.25, 0.75
    index = np.zeros((T, 2, FINE.n), np.int32)
    index[6, :, 5] = 7, 9
    weights[6, :, 8] = 1, 0
    return replace(
        plan, layout=replace(plan.layout, correspondence=Correspondence(slots, {FINE: weights}, {FINE: index}))
    )


def test_a_frame_says_which_keyframes_it_takes_from() -> None:
    plan = blended()
    assert [k for k, _ in shares(plan, 6)] == [1, 0]
    assert [weight for _, weight in shares(plan, 5)] == pytest.approx([0.75, 0.25], abs=1e-3)
    assert shares_sentence(plan, 5) == (
        "It takes 75% from keyframe 2 (1.00 s, frame 10) and 25% from keyframe 1 (0.30 s, frame 3)."
    )
    assert shares(small_plan(), 0) == [(0, 1.0)]


def test_a_point_finds_its_matches_with_their_weights() -> None:
    found = matches(blended(), 6, 5)
    assert [(m.keyframe, m.token, m.weight) for m in found] == [(1, 9, 0.75), (0, 7, 0.25)]
    assert [m.keyframe for m in matches(blended(), 6, 8)] == [0], "what weighs nothing is left out"
    captions = [caption for _, caption in match_view(blended(), 6, 5)]
    assert captions == [
        "the point · 0.60 s, frame 6",
        "75% from keyframe 2 · 1.00 s, frame 10",
        "25% from keyframe 1 · 0.30 s, frame 3",
    ]


def test_where_layers_match_for_themselves_there_is_nothing_to_show() -> None:
    plan = small_plan()
    found = plan.layout.correspondence
    by_layer = replace(
        found, index={FINE: np.empty((20, 1, 0), np.int16)}, weights={FINE: found.weights[FINE][..., :1]}
    )
    plan = replace(plan, layout=replace(plan.layout, correspondence=by_layer))
    assert matches(plan, 6, 5) == [] and shares(plan, 6) == [(0, 1.0)]


def test_the_token_under_a_pixel() -> None:
    assert token_at(FINE, (64, 48), 0, 0) == 0 and token_at(FINE, (64, 48), 63.9, 47.9) == FINE.n - 1
    assert token_at(FINE, (64, 48), 11, 13) == 6 + 1 and token_at(FINE, (64, 48), -5, 500) == 18


def test_the_ring_lies_around_its_token() -> None:
    picture = mark(np.full((96, 144, 3), 120, np.uint8), FINE, 9)  # row 1, column 3
    rows, columns = np.nonzero((picture == PLACE).all(axis=-1))
    assert rows.mean() + 0.5 == pytest.approx(36, abs=1) and columns.mean() + 0.5 == pytest.approx(84, abs=1)
