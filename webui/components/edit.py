"""Step 3: what the video should show, drafts of it, and the progress of the edit."""

from __future__ import annotations

import gradio as gr

from adaflow_core.config import ModelProfile
from adaflow_core.film.timeline import CROSSFADE
from webui import views
from webui.components import settings
from webui.components.heading import heading
from webui.components.region import RegionPart
from webui.jobs.queue import Watched
from webui.settings import EDIT
from webui.studio import Studio
from webui.views import labels

_LEFT = ("steps", "guidance", "focus", "structure", "smoothing")
_RIGHT = ("negative_prompt", "agreements", "variation", "seed")


class EditStep:
    def __init__(self, studio: Studio) -> None:
        kept = f"It goes on if you close this page, and is kept for {studio.limits.kept}."
        heading(3, "Edit", f"Say what the edited video should show, and begin the edit. {kept}")
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=300):
                self.prompting = gr.Radio(
                    [labels.ONE, labels.BY_SHOT], value=labels.ONE, show_label=False, label="How many prompts"
                )
                self.prompt = gr.Textbox(
                    value="", label="Prompt", placeholder="a blue ball rolls over snow", lines=1, max_lines=3
                )
                with gr.Column(visible=False) as self.timeline:
                    self._add_timeline()
                self.prompt_problems = gr.HTML(label="Doubts about the prompt")
                # Near the buttons that begin it: what runs is seen without scrolling.
                self.place_progress = gr.HTML(label="Progress of the search", elem_classes="af-progress")
                self.draft_progress = gr.HTML(label="Progress of the draft", elem_classes="af-progress")
                self.progress = gr.HTML(label="Progress", elem_classes="af-progress")
                self.aside = gr.HTML(label="Progress of edits of what was shown before", elem_classes="af-progress")
            with gr.Column(scale=3, min_width=220, elem_classes="af-begin"):
                with gr.Row():
                    self.start = gr.Button("Edit", variant="primary", min_width=100, elem_classes="af-then")
                    self.stop = gr.Button("Stop", min_width=80, elem_classes="af-stop-edit")
                self.show_place = gr.Button("Show where it changes")
                self.try_it = gr.Button("Try on keyframes")
                self.tried = gr.Dropdown(
                    list(labels.TRIED), value=next(iter(labels.TRIED)), label="Drafts side by side"
                )
                self.of_one_prompt = gr.HTML(views.line(labels.OF_ONE_PROMPT), visible=False)
        self._add_place()
        self._add_draft()
        self._add_vocabulary(studio.profile())
        self.region = RegionPart()
        self._add_settings(studio)
        # Of the edit that runs or ran last, and of the one whose result is shown.
        self.job_id, self.shown_job = (gr.Textbox(label=name, visible=False) for name in ("Job", "Shown job"))
        # For programs, which plan by themselves.
        self.job_status, self.start_of_plan = gr.JSON(label="Status", visible=False), gr.Button(visible=False)
        self.watched = gr.State(Watched())
        self.placed = gr.Textbox(label="Job of the place", visible=False)
        self.drafted = gr.Textbox(label="Job of the drafts", visible=False)
        self.session = gr.Textbox(label="Session", visible=False)  # what the browser remembers, as JSON

    def _add_timeline(self) -> None:
        self.prompts = gr.JSON([], label="Prompts of ranges of frames", visible=False)
        self.rows_of = gr.JSON({}, label="Frames of the file that they are of", visible=False)  # `common/rows.py`
        self.prompts_version = gr.Number(0, visible=False)  # counts the changes after which the rows are drawn anew
        self.rows = gr.Column(elem_classes="af-rows")
        self.crossfade = gr.Number(
            CROSSFADE, precision=0, minimum=0, label="Crossfade, in frames",
            info="Between two prompts inside a shot. At a cut there is none.",
        )  # fmt: skip
        self.takes = gr.JSON([], label="Takes of a project", visible=False)

    def _add_vocabulary(self, profile: ModelProfile) -> None:
        words, known = profile.vocabulary, dict(profile.words)
        with gr.Accordion(views.vocabulary_title(words), open=False, visible=bool(words)) as self.vocabulary:
            for kind in labels.KINDS:
                made = gr.Radio(
                    list(known.get(kind, ())), label=f"{kind.capitalize()}, to click into the prompt",
                    visible=kind in known, elem_classes="af-word",
                )  # fmt: skip
                setattr(self, kind, made)
            self.vocabulary_words = gr.HTML(views.vocabulary(words), label="Known words")

    def _add_settings(self, studio: Studio) -> None:
        profile = studio.profile()
        with gr.Accordion("Settings of the edit", open=False), gr.Row():
            with gr.Column(min_width=300):
                self.settings = settings.add_settings(_LEFT, profile)
            with gr.Column(min_width=300):
                self.settings |= settings.add_settings(_RIGHT, profile)
                with gr.Accordion("More", open=False):
                    others = [name for name in EDIT if name not in self.settings]
                    self.settings |= settings.add_settings(others, profile, studio.public)
                self.reset = gr.Button("Back to the model's own settings", size="sm")

    def _add_place(self) -> None:
        with gr.Column(visible=False, elem_id=labels.PLACE) as self.place:
            self.place_sentence = gr.HTML(label="What may change there")
            self.place_gallery = _pictures("Where it changes", columns=4, buttons=["fullscreen"])

    def _add_draft(self) -> None:
        with gr.Column(visible=False, elem_id=labels.DRAFTS, elem_classes="af-draft") as self.draft:
            self.draft_sentence = gr.HTML(label="About the drafts")
            # A click chooses a draft, so js/access.js adds a button to each that shows it large.
            chosen = {"elem_classes": ["af-gallery", "af-choice", "af-drafts"], "allow_preview": False, "buttons": []}
            self.draft_gallery = _pictures("Drafts", columns=2, **chosen)
        self.drafts = gr.JSON([], label="Settings of the drafts", visible=False)


def _pictures(label: str, **own: object) -> gr.Gallery:
    given = {"elem_classes": "af-gallery"} | own
    return gr.Gallery(
        label=label,
        show_label=False,
        object_fit="contain",
        interactive=False,
        **given,  # type: ignore[arg-type]
    )
