"""Step 3: the prompt, the progress of the edit and its result."""

from __future__ import annotations

import gradio as gr

from webui import views
from webui.components.heading import heading
from webui.studio import Studio


class EditStep:
    def __init__(self, studio: Studio) -> None:
        heading(3, "Edit", "Say what the edited video should show. The job goes on if you close this page.")
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=300):
                self.prompt = gr.Textbox(
                    value="", label="Prompt", placeholder="a blue ball rolls over snow", lines=1, max_lines=3
                )
                self.prompt_problems = gr.HTML(label="Doubts about the prompt")
            with gr.Column(scale=3, min_width=220):
                with gr.Row():
                    self.start = gr.Button("Edit", variant="primary", min_width=100)
                    self.stop = gr.Button("Stop", min_width=80)
                self.show_place = gr.Button("Show where it changes")
        words = studio.profile().vocabulary
        with gr.Accordion(views.vocabulary_title(words), open=False, visible=bool(words)) as self.vocabulary:
            self.vocabulary_words = gr.HTML(views.vocabulary(words), label="Known words")
        self._add_place()
        self.progress = gr.HTML(label="Progress")
        with gr.Column(visible=False) as self.result:
            self.about = gr.HTML(label="Prompt of the edit")
            self._add_videos()
            self.scores = gr.HTML(label="Scores")
            self.warnings = gr.HTML(label="Warnings")
            self._add_comparison()
            self._add_history()
            self._add_files()
        self.job_id = gr.Textbox(label="Job", visible=False)
        self.status = gr.JSON(label="Status", visible=False)  # for programs
        self.place_job_id = gr.State("")
        self.session = gr.Textbox(label="Session", visible=False)  # what the browser remembers, as JSON

    def _add_place(self) -> None:
        self.place_progress = gr.HTML(label="Progress of the search")
        with gr.Column(visible=False) as self.place:
            self.place_sentence = gr.HTML(label="What may change there")
            self.place_gallery = gr.Gallery(
                label="Where it changes",
                show_label=False,
                columns=4,
                elem_classes="af-gallery",
                object_fit="contain",
                buttons=["fullscreen"],
                interactive=False,
            )

    def _add_videos(self) -> None:
        with gr.Row():
            self.source = gr.Video(
                label=views.SOURCE,
                interactive=False,
                loop=True,
                min_width=280,
                height=420,
                elem_classes="af-source",
            )
            self.edited = gr.Video(
                label="Edit",
                interactive=False,
                loop=True,
                autoplay=True,
                buttons=["download"],
                min_width=280,
                height=420,
                elem_classes="af-edited",
            )

    def _add_comparison(self) -> None:
        with gr.Accordion("Compare frame by frame", open=False) as self.comparison:
            self.compared = gr.ImageSlider(
                label="Source and edit, one frame",
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                max_height=520,
                elem_classes="af-compare",
            )
            self.compared_frame = gr.Slider(0, 1, 0, step=1, label="Frame to compare")
            self.compared_line = gr.HTML(label="About the compared frame")

    def _add_history(self) -> None:
        with gr.Accordion("Edits so far, and two of them side by side", open=False, visible=False) as self.history:
            self.history_table = gr.HTML(label="Edits so far")
            with gr.Row():
                self.shown = gr.Dropdown([], label="Edit shown", min_width=240)
                self.beside = gr.Dropdown([("its source", "")], value="", label="Beside it", min_width=240)

    def _add_files(self) -> None:
        with gr.Row():
            self.video_file = gr.DownloadButton("Download the video", min_width=160)
            self.report_file = gr.DownloadButton("Download the report", min_width=160)
        with gr.Accordion("Reproduce this: command line, settings and times", open=False):
            self.command = gr.Code(
                label="In a shell, beside the video", language="shell", lines=2, max_lines=6, wrap_lines=True
            )
            self.report = gr.JSON(label="Report", show_label=False)
