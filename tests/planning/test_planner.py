"""The planner: which way of choosing keyframes the settings take, and what it tells of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch

from adaflow_core.config import METHODS, PlanConfig
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.planning import correspondence, planner, residual, similarity
from adaflow_core.planning import keyframes as planner_module
from adaflow_core.planning.keyframes import even_segments
from adaflow_core.planning.planner import Planner, build_layout, counted_layout, draw_keyframes, drawn_layouts
from adaflow_core.planning.similarity import FrameSimilarity
from adaflow_core.progress import Monitor, Progress
from adaflow_core.types import EditLayout, Grid, KeyframeChoice, Segments
from helpers.made import drifting, latents_of

T, CUT = 40, 13
NO_CUTS = np.array([], int)
CONFIG = PlanConfig(similarity=0.9, window_similarity=0.8, residual=0.14, max_segment=12, max_keyframes=30)


def choose(config: PlanConfig) -> KeyframeChoice:
    features = drifting(T, Grid(4, 3), cuts=(CUT,))
    planner = Planner(torch.device("cpu"))
    return planner.choose(features, latents_of(features), np.array([CUT]), "drifting", config, Monitor())


def changed(**settings: object) -> PlanConfig:
    return PlanConfig(**{**vars(CONFIG), **settings})  # type: ignore[arg-type]


def test_memory_is_given_back_by_a_choice_that_is_stopped() -> None:
    features, used = drifting(T, Grid(4, 3)), []
    for calls in range(1, 40, 6):
        planner, left = Planner(torch.device("cpu")), iter(range(calls))
        monitor = Monitor(stop=lambda left=left: next(left, None) is None)
        with pytest.raises(Stopped):
            planner.choose(features, latents_of(features), np.array([], int), "drifting", CONFIG, monitor)
        assert not planner._last["pooled"][1]._pooled
        used.append("adjacent" in planner._last)
    assert len(set(used)) == 2, "stopped before and after"


def test_memory_is_given_back_after_a_choice_that_failed_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of the film before reads the same features as what is made of it afterwards."""
    films = {"first": drifting(T, Grid(4, 3)), "other": drifting(T, Grid(4, 3), pace=0.2)}
    of_both = Planner(torch.device("cpu"))

    def chosen(key: str, **settings: object) -> KeyframeChoice:
        features = films[key]
        return of_both.choose(features, latents_of(features), NO_CUTS, key, changed(**settings), Monitor())

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    chosen("first")
    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):
        patched.setattr(planner, "PropagationResidual", full)
        chosen("other")
    chosen("first", residual=0.1)
    kept = [of_both._last[name][1].pooled for name in ("similarity", "residual")]
    assert not any(pooled._pooled for pooled in kept) and kept[0] is kept[1] is of_both._last["pooled"][1]


def test_another_importance_is_what_it_is_without_the_one_before() -> None:
    weights = np.random.default_rng(5).random((T, 12)).astype(np.float32) ** 4
    features = drifting(T, Grid(4, 3), cuts=(CUT,))
    features = replace(features, importance={"uniform": features.importance["uniform"], "distinctive": weights})
    first, fresh = Planner(torch.device("cpu")), Planner(torch.device("cpu"))

    def chosen(by: Planner, importance: str) -> KeyframeChoice:
        config = changed(importance=importance, refinement="none")
        return by.choose(features, latents_of(features), np.array([CUT]), "weighted", config, Monitor())

    before, after, expected = chosen(first, "uniform"), chosen(first, "distinctive"), chosen(fresh, "distinctive")
    for name in ("adjacent", "similarity", "window"):
        np.testing.assert_array_equal(getattr(after, name), getattr(expected, name))
    assert (before.adjacent != after.adjacent).any() and after.segments.starts.tolist() != [0, CUT]


def test_what_shapes_no_segments_chooses_none_anew() -> None:
    """Of the words those that weigh tokens are in the features' key."""
    features, planner = drifting(T, Grid(4, 3)), Planner(torch.device("cpu"))

    def chosen(**settings: object) -> KeyframeChoice:
        return planner.choose(features, latents_of(features), NO_CUTS, "drifting", changed(**settings), Monitor())

    first = chosen()
    for settings in ({"prune": 0.3}, {"sampled": 0.5}, {"resample": True}, {"source_prompt": "a red ball"}):
        assert chosen(**settings) is first, settings
    assert chosen(residual=0.3) is not first


@pytest.mark.parametrize("settings", [{}, {"refinement": "none"}, {"keyframes_at": "5,890"}])
def test_a_choice_is_followed_and_can_be_stopped_all_along(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """Between two looks at the stop signal lie no more than a few hundred pairs of frames, however long a film is."""
    matched, looked, seen = 0, [0], list[Progress]()

    def count(module: ModuleType, name: str) -> None:
        plain = getattr(module, name)

        def counted(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            nonlocal matched
            matched += len(first)
            return plain(first, second)

        monkeypatch.setattr(module, name, counted)

    for module, name in ((similarity, "match_maps"), (residual, "best_match"), (correspondence, "best_match")):
        count(module, name)
    monitor = Monitor(seen.append, stop=lambda: bool(looked.append(matched)))
    config = changed(similarity=-1.0, window_similarity=-1.0, max_segment=900, residual=2.0, **settings)
    features = drifting(900, Grid(4, 3))
    Planner(torch.device("cpu")).choose(features, latents_of(features), NO_CUTS, "drifting", config, monitor)
    assert matched > 1800 and np.diff([*looked, matched]).max() <= 512
    assert {"similarity", "residual"} <= {each.stage for each in seen}
    assert all(one.done == one.total for one, other in pairwise([*seen, seen[0]]) if other.done == 0), "all ended"


def test_a_walk_keeps_the_thresholds() -> None:
    choice = choose(changed(refinement="none", scales=(1, 2), both_directions=True))
    similarity = FrameSimilarity(drifting(T, Grid(4, 3), cuts=(CUT,)), "uniform")
    segments = choice.segments
    assert 4 < len(segments) < T and segments.lengths.max() <= 12 and segments.cuts.tolist() == [CUT]
    for start, end in zip(segments.starts, segments.ends, strict=True):
        means, windows = similarity.compare((1, 2), True, int(start), np.arange(start, end))
        assert (means >= 0.9).all() and (windows >= 0.8).all()


def test_the_refinement_has_at_least_as_many_keyframes_as_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = len(choose(changed(refinement="none")).segments)
    # It takes their number alone: which frames of the walk stand for it is never asked.
    monkeypatch.setattr(planner_module, "representatives", None)
    assert len(choose(changed(refinement="move")).segments) == walked
    assert walked < len(choose(CONFIG).segments) < T


@pytest.mark.parametrize("method", ["adaflow", "uniform"])
def test_keyframes_that_are_given_are_those_and_every_shot_has_one(method: str) -> None:
    choice = choose(changed(keyframes_at="20, 5,9, 30", method=method))
    assert choice.segments.keyframes.tolist() == [5, 9, 20, 30] and not choice.notes
    assert choice.segments.starts.tolist()[2] == CUT and choice.residual[[5, 9, 20, 30]].max() == 0
    choice = choose(changed(keyframes_at="5", method=method))
    assert choice.segments.keyframes.tolist() == [5, (CUT + T - 1) // 2] and "from frame 13" in choice.notes[0]
    choice = choose(changed(keyframes_at="5,20", keyframes=4, method=method))
    assert len(choice.segments) == 2 and "the number 4 does not count" in choice.notes[0]
    with pytest.raises(AdaFlowError, match=f"names frame {T}; the plan has frames 0 to {T - 1}"):
        choose(changed(keyframes_at=f"5,{T}", method=method))
    with pytest.raises(AdaFlowError, match=f"names frame {10**20}; the plan has"):
        choose(changed(keyframes_at=f"5,{10**20}", method=method))


@pytest.mark.parametrize("refinement", ["none", "move", "split"])
def test_the_thresholds_may_not_ask_for_more_than_is_allowed(refinement: str) -> None:
    choice = choose(changed(refinement=refinement, max_keyframes=3))
    assert len(choice.segments) == 3 and "3 were allowed" in choice.notes[0]


@pytest.mark.parametrize("refinement", ["none", "split"])
@pytest.mark.parametrize(("asked", "given", "why"), [(1, 2, "2 shots need one each"), (99, T, f"has {T} frames")])
def test_a_number_that_cannot_be_had(refinement: str, asked: int, given: int, why: str) -> None:
    choice = choose(changed(refinement=refinement, keyframes=asked))
    assert len(choice.segments) == given and why in choice.notes[0]


def test_even_keyframes_without_a_number_lie_eight_frames_apart() -> None:
    found = choose(changed(method="uniform"))
    assert found.segments.keyframes.tolist() == even_segments(T, 5, np.array([CUT])).keyframes.tolist()
    assert not found.notes and len(choose(changed(method="tokenflow")).segments.cuts) == 0


@pytest.mark.parametrize("method", ["joint", "per-frame"])
def test_methods_without_keyframes_take_every_frame(method: str) -> None:
    choice = choose(changed(method=method))
    assert choice.segments.keyframes.tolist() == list(range(T)) and not choice.residual.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("blend", [True, False])
def test_a_counted_layout_has_the_shapes_of_the_one_that_is_built(method: str, blend: bool) -> None:
    features, grids = drifting(T, Grid(4, 3)), [Grid(6, 4), Grid(2, 2)]
    segments, config = even_segments(T, 5, NO_CUTS), changed(method=method, blend=blend, prune=0.6)
    built = build_layout(features, segments, grids, config, "cpu", Monitor())
    counted = counted_layout(features, segments, grids, config)

    def shapes(layout: EditLayout) -> list[object]:
        taken = layout.correspondence
        arrays = [
            layout.keyframes,
            taken.slots,
            *(part[grid] for part in (taken.index, taken.weights) for grid in grids),
        ]
        arrays += [array for part in (layout.slimming or {}).values() for array in (part.scores, part.kept)]
        return [(array.shape, array.dtype) for array in arrays]

    assert shapes(counted) == shapes(built) and (counted.slimming is None) == (built.slimming is None)
    assert counted.correspondence.by_layer == built.correspondence.by_layer


def test_keyframes_are_drawn_each_in_its_segment_and_the_same_for_the_same_step() -> None:
    segments = Segments(np.array([0, 1, 4, 30]), np.array([0, 2, 5, 31]), NO_CUTS, T)
    drawn = {(seed, step): draw_keyframes(segments, seed, step).keyframes for seed in (0, 1) for step in range(40)}
    for (seed, step), keyframes in drawn.items():
        assert (segments.starts <= keyframes).all() and (keyframes < segments.ends).all()
        assert draw_keyframes(segments, seed, step).keyframes.tolist() == keyframes.tolist()
    assert {int(keyframes[1]) for keyframes in drawn.values()} == {1, 2, 3}, "all of a segment come"
    assert len({tuple(keyframes) for keyframes in drawn.values()}) > 60


def test_keyframes_drawn_anew_match_alike_whether_features_stay_or_are_read() -> None:
    features, grids = drifting(T, Grid(4, 3)), [Grid(4, 3), Grid(2, 2)]
    segments = even_segments(T, 3, np.array([], int))
    common = features, segments, grids, changed(kv_frames=2.0, resample=True), 0, torch.device("cpu"), Monitor()
    kept, read = drawn_layouts(*common), drawn_layouts(*common, low_memory=True)
    first, again = kept(0), read(0)
    assert kept(1).keyframes.tolist() != first.keyframes.tolist() == again.keyframes.tolist()
    for grid in grids:
        for name in ("index", "weights"):
            here, there = (getattr(layout.correspondence, name)[grid] for layout in (first, again))
            np.testing.assert_array_equal(here, there)
