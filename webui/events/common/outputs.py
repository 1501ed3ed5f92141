"""The outputs of the page's events: one named tuple per kind of event.

The order of the fields is the order of the outputs. `collect` looks the components up by these names, and handlers
return their values under the same names, so the two cannot get out of order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import gradio as gr


class VideoOutputs(NamedTuple):
    """Another video was chosen: what belonged to the previous one is cleared."""

    examples: Any
    video: Any
    source_prompt: Any
    prompt: Any
    frames: Any
    keyframes_at: Any
    plan_id: Any
    facts: Any
    stale: Any
    status: Any
    placeholder: Any
    views: Any
    prompt_problems: Any
    place: Any
    place_progress: Any
    placed: Any
    progress: Any
    retake_progress: Any
    result: Any
    job_id: Any  # of the edit
    shown_job: Any
    draft: Any
    draft_progress: Any
    drafted: Any
    region_job_id: Any
    region_progress: Any
    prompting: Any
    prompts: Any
    rows_of: Any
    takes: Any
    project_line: Any
    retake_prompt: Any
    retake_seed: Any
    retake_variation: Any
    painted_frame: Any
    box_left: Any
    box_top: Any
    box_right: Any
    box_bottom: Any


class ModelOutputs(NamedTuple):
    """Another model was chosen; after these come `ModelShown` and all settings, at its own values."""

    status: Any
    model: Any
    side: Any


class ModelShown(NamedTuple):
    """What the page shows about the chosen model, apart from its settings."""

    model_before: Any  # the choice to return to if loading fails
    vocabulary: Any
    vocabulary_words: Any
    things: Any
    colours: Any
    places: Any
    styles: Any
    toy: Any
    larger: Any


class RestoredOutputs(NamedTuple):
    """What a tab had before a reload; after these come `ModelShown` and the settings that it remembers."""

    video: Any
    source_prompt: Any
    prompt: Any
    job_id: Any  # of the edit
    shown_job: Any
    drafted: Any
    placed: Any
    plan_id: Any
    over: Any
    over_id: Any


class PreviewOutputs(NamedTuple):
    """A plan is made: its progress, then everything that shows the plan."""

    plan_id: Any
    status: Any
    facts: Any
    placeholder: Any
    views: Any
    cost: Any
    gallery: Any
    timeline: Any
    time_slice: Any
    number: Any
    grid: Any
    frame: Any
    column: Any
    zoom: Any
    window: Any
    matches: Any
    match_sentence: Any
    stale: Any


class TokenOutputs(NamedTuple):
    """The tokens of one keyframe."""

    selected: Any
    tokens: Any
    sentence: Any


class FrameOutputs(NamedTuple):
    """One frame with its similarity to its keyframe."""

    frame_picture: Any
    frame_sentence: Any


class ZoomOutputs(NamedTuple):
    """The plots of a window of frames."""

    timeline: Any
    time_slice: Any
    window: Any  # (first frame, end)


class MatchOutputs(NamedTuple):
    """The matches of a point of a frame."""

    matches: Any
    match_sentence: Any


class PlaceOutputs(NamedTuple):
    """Where an edit would change the video: the progress of the search, then the pictures."""

    place_progress: Any
    place: Any
    place_sentence: Any
    place_gallery: Any
    placed: Any  # the job that found it


class DraftOutputs(NamedTuple):
    """Drafts: their progress, then their pictures and settings."""

    draft_progress: Any
    draft: Any
    draft_sentence: Any
    draft_gallery: Any
    drafts: Any
    drafted: Any  # the job that made them


class OverOutputs(NamedTuple):
    """The region and the keyframes by hand (`OverState`), and how the page shows them."""

    over: Any
    over_id: Any  # by which the browser finds it again
    region_job_id: Any
    region_progress: Any
    region_line: Any
    region_gallery: Any
    region_words: Any
    feather: Any
    hand_line: Any
    hand_gallery: Any


class RowsOutputs(NamedTuple):
    """The rows of prompts, the counter that redraws them, and the takes and `rows_of` that belong to their frames."""

    prompts: Any
    prompts_version: Any
    rows_of: Any
    takes: Any


class ProjectOutputs(NamedTuple):
    """A project was opened; after these come `ModelShown` and all settings, with the project's values."""

    project_line: Any
    plan_id: Any
    video: Any
    source_prompt: Any
    model: Any
    side: Any
    frames: Any
    prompting: Any
    prompt: Any
    prompts: Any
    rows_of: Any
    crossfade: Any
    takes: Any
    over: Any


class WatchOutputs(NamedTuple):
    """An edit: its job while it runs, then everything that shows the result."""

    job_status: Any
    progress: Any
    result: Any
    about: Any
    source: Any
    edited: Any
    compared_frame: Any
    compared: Any
    compared_line: Any
    scores: Any
    warnings: Any
    rims: Any
    first: Any
    end: Any
    stretch_pictures: Any
    retake_prompt: Any
    video_file: Any
    small_file: Any
    report_file: Any
    project_file: Any
    shown_job: Any
    command: Any
    report: Any


class HistoryOutputs(NamedTuple):
    """The edits that this browser asked for, and which of them are shown."""

    history: Any
    history_table: Any
    shown: Any
    beside: Any
    source: Any
    compared: Any
    compared_line: Any


class BesideOutputs(NamedTuple):
    """What stands beside the edit: its source, or another edit; and the compared frame of both."""

    source: Any
    compared: Any
    compared_line: Any


class CompareOutputs(NamedTuple):
    """One frame of the source and of the edit."""

    compared: Any
    compared_line: Any


Outputs = TypeVar("Outputs", bound=NamedTuple)


def unchanged(kind: type[Outputs], **values: Any) -> Outputs:
    """Outputs of this kind that keep what they show, except for `values`."""
    return kind._make(gr.skip() for _ in kind._fields)._replace(**values)


def collect(names: Iterable[str], *steps: object, **others: Any) -> list[Any]:
    """Return the components called `names`, in that order: from `others`, else from the first step that has the name.

    A step's settings (`settings`) count as its components.
    """
    known = dict(others)
    for step in steps:
        known = {**vars(step), **getattr(step, "settings", {}), **known}
    return [known[name] for name in names]
