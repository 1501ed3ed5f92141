"""Step 3: a part of the picture, and keyframes that are given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from webui.events.common.outputs import OverOutputs, collect
from webui.events.region import RegionEvents
from webui.messages import quietly
from webui.wiring.shared import (
    EACH,
    KEEP_OVER,
    PRIVATE,
    PRIVATE_LATEST,
    Call,
    Steps,
    parameters,
    show_over,
    when_plan_changes,
)


def connect_region(region: RegionEvents, steps: Steps) -> None:
    """A region that is painted, and keyframes that are given back."""
    plan, edit, part = steps.plan, steps.edit, steps.edit.region
    known = {"plan_id": plan.plan_id, "drafted": edit.drafted, "video": steps.video.video}

    def call(handler: Callable[..., Any], outputs: list[Any]) -> Call:
        return Call(handler, collect(parameters(handler), part, **known), outputs)

    shown = collect(OverOutputs._fields, part)
    searches = [
        part.use_strokes.click(*call(region.use_strokes, shown), **EACH),
        part.use_box.click(*call(region.use_box, shown), **EACH),
        gr.on([part.find_words.click, part.region_words.submit], *call(region.find_words, shown), **EACH),
        part.feather.release(*call(region.set_feather, shown), **EACH),
    ]
    part.load_frame.click(*call(region.load_frame, [part.canvas, part.loaded]), **PRIVATE)
    of_video = steps.video.video.change(*call(quietly(region.of_video), shown), **PRIVATE_LATEST)
    of_video.then(lambda: None, None, part.canvas, **PRIVATE)
    changed = [
        *searches,
        part.no_region.click(*call(region.no_region, shown), **PRIVATE),
        part.give_back.upload(*call(region.give_back, shown), **PRIVATE),
        part.take_back.click(*call(region.take_back, shown), **PRIVATE),
        of_video,
    ]
    file = call(region.keyframe_file, [part.keyframe_file, part.keyframe_of])
    gr.on([part.keyframe.change, edit.drafted.change], *file, **PRIVATE)
    part.keyframe_of.input(*call(region.check_draft, []), **PRIVATE).then(*file, **PRIVATE)
    when = when_plan_changes(steps)
    when(*call(region.keyframes, [part.keyframe]), **PRIVATE).then(*file, **PRIVATE)
    show_over(when, region, steps)
    for event in changed:
        event.then(None, part.over_id, None, js=KEEP_OVER, **PRIVATE)
    for event in searches:  # there may be another plan by now, with other frames
        show_over(event.success, region, steps)
