"""Pictures of a plan over time: curves and marks stand at their frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from adaflow_core.config import ModelProfile, PlanConfig, resolve_plan
from adaflow_core.report.canvas import CUT, KEYFRAME, Canvas
from adaflow_core.report.plots import WIDTH, TimeAxis, plot_timeline, time_slice
from helpers.pictures import near
from helpers.plans import small_plan


def test_axis_maps_frames_and_pixels_both_ways() -> None:
    axis = TimeAxis.of(small_plan(), WIDTH)
    assert [axis.frame_at(axis.centre(t)) for t in range(20)] == list(range(20))
    assert axis.frame_at(-50) == 0 and axis.frame_at(5000) == 19
    assert axis.edge(20) == axis.left + axis.width
    part = TimeAxis.of(small_plan(), WIDTH, slice(5, 13))
    assert [part.frame_at(part.centre(t)) for t in range(5, 13)] == list(range(5, 13))
    assert part.frame_at(-50) == 5 and part.frame_at(5000) == 12 and part.edge(2) == part.left


@pytest.mark.parametrize("draw", [plot_timeline, time_slice])
def test_marks_stand_at_their_frames(draw) -> None:
    plan = small_plan()
    picture, axis = draw(plan), TimeAxis.of(plan, WIDTH)
    assert picture.shape[1] == WIDTH
    strip = picture[38:47]  # where the triangles are, above the panels and under the legend
    columns = np.flatnonzero(near(strip, KEYFRAME).any(axis=0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert [round(float(group.mean())) for group in groups] == pytest.approx(
        [axis.centre(t) for t in plan.segments.keyframes], abs=1
    )
    # The cut is a solid line over the height of the panels; nothing else of that colour is as tall.
    tall = np.flatnonzero(near(picture[48:140], CUT).mean(axis=0) > 0.8)
    assert tall.mean() == pytest.approx(axis.edge(14), abs=1.5)


@pytest.mark.parametrize("draw", [plot_timeline, time_slice])
def test_a_part_of_the_frames_has_its_own_marks_only(draw) -> None:
    plan = small_plan()
    strip = draw(plan, frames=slice(8, 14))[38:47]
    columns = np.flatnonzero(near(strip, KEYFRAME).any(axis=0))
    axis = TimeAxis.of(plan, WIDTH, slice(8, 14))
    assert columns.mean() == pytest.approx(axis.centre(10), abs=1) and np.ptp(columns) < 12


def test_the_residual_of_an_edit_stands_beside_the_plans() -> None:
    plan = small_plan()
    assert not np.array_equal(plot_timeline(plan), plot_timeline(plan, edited=plan.residual.tolist()))
    high = plot_timeline(plan, edited=[5.0] * 20)
    assert high.shape == plot_timeline(plan).shape, "and the panel has room for it"


def test_time_slice_shows_the_column_of_every_frame() -> None:
    plan = small_plan()
    plan.video.frames[:] = 120
    plan.video.frames[5, :, 7] = (250, 10, 10)
    axis = TimeAxis.of(plan, WIDTH)
    picture = time_slice(plan, 7)
    red = near(picture[60:170], (250, 10, 10)).all(axis=0)
    assert red[round(axis.edge(5)) + 1 : round(axis.edge(6)) - 1].all()
    assert not red[: round(axis.edge(5)) - 1].any() and not red[round(axis.edge(6)) + 1 :].any()
    assert not near(time_slice(plan, 8)[60:170], (250, 10, 10)).any()


def test_time_slice_reads_only_the_frames_that_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, read, pasted, paste = small_plan(), list[int](), list[np.ndarray](), Canvas.paste
    monkeypatch.setattr(Canvas, "paste", lambda *given: pasted.append(given[1]) or paste(*given))

    class Read(np.ndarray):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            read.append(len(found))
            return found

    narrow = 64  # of which margins leave 4 pixels, drawn at twice the size
    whole = plan.video.frames
    slab = Image.fromarray(np.ascontiguousarray(whole[:, :, 7].transpose(1, 0, 2)))
    time_slice(replace(plan, video=replace(plan.video, frames=whole.view(Read))), 7, narrow)
    assert read[0] == 8
    assert np.array_equal(pasted[0], slab.resize((8, slab.height), Image.Resampling.NEAREST)), "as of all frames"


def test_timeline_of_a_single_frame_and_of_a_given_count_can_be_drawn() -> None:
    plan = small_plan(keyframes=3)
    with_thresholds, without = plot_timeline(small_plan()), plot_timeline(plan)
    assert with_thresholds.shape == without.shape and not np.array_equal(with_thresholds, without)
    nothing = {"similarity": None, "window_similarity": None, "residual": None}
    for asked, undrawn in (
        (PlanConfig(keyframes_at="3,10,17"), nothing),
        (PlanConfig(method="uniform"), nothing),
        (PlanConfig(method="joint"), nothing),
        (PlanConfig(keyframes=3), nothing),
        (PlanConfig(refinement="none"), {"residual": None}),
        (PlanConfig(refinement="move"), {"residual": None}),
    ):
        plan = replace(plan, config=resolve_plan(asked, ModelProfile(), "cpu"))
        bare = replace(plan, config=replace(plan.config, **undrawn))
        assert np.array_equal(plot_timeline(plan, 480), plot_timeline(bare, 480)), (
            "what chose no keyframe is not drawn as if it had"
        )


def test_uneven_frames_stand_at_their_own_times(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(start=100)
    times = [10.0 + 0.1 * t if t < 10 else 11.0 + 0.3 * (t - 10) for t in range(21)]  # ten a second, then three
    plan = replace(plan, video=replace(plan.video, times=tuple(times)))
    shown: dict[str, float] = {}
    monkeypatch.setattr(Canvas, "text", lambda canvas, x, y, text, *rest: shown.update({text: x}) or 0.0)
    plot_timeline(plan)
    axis = TimeAxis.of(plan, WIDTH)
    for text, frame in (("0.5 s", 5), ("1.0 s", 10), ("2.5 s", 15), ("4.0 s", 20)):
        assert shown[text] == pytest.approx(axis.edge(frame)), text
    assert {"frame 5", "frame 10", "frame 15", "frame 20"} <= shown.keys()
    assert "frame 11" in shown and "frame 12" not in shown, "1.5 s is in frame 11, which ends at 1.6 s"
    shown.clear()
    plot_timeline(plan, frames=slice(15, 16))
    assert [text for text in shown if text.endswith(" s")] == ["2.50 s", "2.80 s"], "of one frame its beginning and end"
    assert [text for text in shown if text.startswith("frame ")] == ["frame 15", "frame 16"]
