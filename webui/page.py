"""The page: its components in their order, and what connects them (`wiring/`)."""

from __future__ import annotations

import gradio as gr

from webui.components.edit import EditStep
from webui.components.examples import load_clips
from webui.components.files import leave_files_as_they_are
from webui.components.heading import head
from webui.components.plan import PlanStep
from webui.components.result import ResultStep
from webui.components.video import VideoStep
from webui.events.edit.begin import BeginEvents
from webui.events.edit.draft import DraftEvents
from webui.events.edit.edit import EditEvents
from webui.events.edit.place import PlaceEvents
from webui.events.edit.result import ResultEvents
from webui.events.edit.retake import RetakeEvents
from webui.events.edit.watch import WatchEvents
from webui.events.model import ModelEvents
from webui.events.plan import PlanEvents
from webui.events.project import ProjectEvents
from webui.events.ranges import RangeEvents
from webui.events.region import RegionEvents
from webui.events.session import SessionEvents
from webui.events.timeline import TimelineEvents
from webui.events.video import VideoEvents
from webui.studio import Studio
from webui.wiring.edit import connect_draft, connect_edit, connect_place, connect_words
from webui.wiring.memory import connect_memory
from webui.wiring.plan import connect_hand, connect_plan_views, connect_point, connect_preview, connect_settings
from webui.wiring.region import connect_region
from webui.wiring.result import connect_result, connect_retake
from webui.wiring.rows import connect_rows
from webui.wiring.shared import Events, Steps
from webui.wiring.video import connect_project, connect_video


def build(studio: Studio) -> gr.Blocks:
    """The whole page over one studio."""
    leave_files_as_they_are()
    clips = load_clips()
    with gr.Blocks(title="AdaFlow", analytics_enabled=False) as blocks:
        head()
        video = VideoStep(studio, clips)
        with gr.Column(elem_classes="af-after-video"):
            steps = Steps(video, PlanStep(studio), EditStep(studio), ResultStep(studio.limits))
        planning, editing = PlanEvents(studio), EditEvents(studio)
        events = Events(
            video=VideoEvents(studio, clips),
            model=ModelEvents(studio),
            session=SessionEvents(studio),
            planning=planning,
            timeline=TimelineEvents(studio),
            region=RegionEvents(studio),
            place=PlaceEvents(editing),
            drafts=DraftEvents(editing),
            ranges=RangeEvents(studio),
            editing=editing,
            beginning=BeginEvents(planning, editing),
            watching=WatchEvents(studio),
            results=ResultEvents(studio),
            retakes=RetakeEvents(editing),
            projects=ProjectEvents(studio, clips),
        )
        connect_video(events, steps)
        connect_settings(events, steps)
        connect_plan_views(events, steps.plan, steps.edit)
        connect_point(events.timeline, steps.plan, steps.edit)
        connect_words(events.model, steps)
        previewed = [*connect_preview(events, steps), *connect_hand(events, steps)]
        connect_place(events, steps)
        connect_draft(events, steps)
        connect_region(events.region, steps)
        connect_rows(events, steps)
        edit_started = connect_edit(events, steps)
        retake_started = connect_retake(events, steps)
        connect_result(events, steps, edit_started=edit_started, retake_started=retake_started)
        connect_project(events, steps)
        connect_memory(
            blocks, events, steps, previewed=previewed, edit_started=edit_started, retake_started=retake_started
        )
    return blocks
