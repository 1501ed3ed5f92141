"""The finished edit: beside its source or another, its scores and files, and a stretch of it again."""

from __future__ import annotations

import gradio as gr

from webui import views
from webui.limits import Limits
from webui.settings import FIRST
from webui.views import labels


class ResultStep:
    def __init__(self, limits: Limits) -> None:
        with gr.Column(visible=False, elem_id=labels.RESULT, elem_classes="af-result") as self.result:
            self.about = gr.HTML(label="Prompt of the edit")
            self._add_videos()
            self.scores = gr.HTML(label="Scores")
            self.warnings = gr.HTML(label="Warnings")
            self.rims = gr.HTML(label="Where rims are")
            self._add_comparison()
            self._add_retake()
            self._add_files(limits)
        self._add_history()  # below what is shown, and also there where nothing is

    def _add_videos(self) -> None:
        with gr.Row():
            self.source = gr.Video(
                label=labels.SOURCE,
                interactive=False,
                loop=True,
                min_width=280,
                elem_classes="af-source",
            )
            self.edited = gr.Video(
                label="Edit",
                interactive=False,
                loop=True,
                autoplay=True,
                buttons=["download"],
                min_width=280,
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

    def _add_retake(self) -> None:
        with gr.Accordion("Make a stretch again", open=False, elem_classes="af-retake") as self.retaking:
            gr.HTML(
                views.line(
                    "The frames around it stay as they are, and the new ones are fitted in. The old take is kept under "
                    "Edits so far: the one that is shown is the one you download."
                )
            )
            with gr.Row():
                with gr.Column(min_width=240):
                    self.first = gr.Slider(0, 1, 0, step=1, label="First frame of the stretch")
                    self.first_here = gr.Button("The frame that is shown", size="sm")
                with gr.Column(min_width=240):
                    self.end = gr.Slider(1, 2, 1, step=1, label="Its end, not included")
                    self.end_here = gr.Button("End at the frame that is shown", size="sm")
            self.shown_second = gr.Number(0, visible=False, label="Second that the edit's video shows")
            self.stretch_pictures = gr.HTML(label="First and last frame of the stretch")
            self.retake_prompt = gr.Textbox(
                value="", label="Prompt of the stretch", placeholder="the same as before", lines=1, max_lines=3
            )
            with gr.Row():
                self.retake_seed = gr.Number(
                    FIRST["retake_seed"], precision=0, minimum=0, label="Seed of the stretch", min_width=160
                )
                self.retake_variation = gr.Slider(
                    0, 1, FIRST["retake_variation"], step=0.05, label="Variation of the stretch", min_width=240,
                    info="How far the seed draws the noise anew. At 0 the seed changes nothing.",
                )  # fmt: skip
                self.retake = gr.Button("Retake", min_width=120)
                self.stop_retake = gr.Button("Stop the retake", min_width=120)
            self.retake_job_id = gr.State("")
            self.retake_progress = gr.HTML(label="Progress of the retake", elem_classes="af-status")

    def _add_history(self) -> None:
        title = "Edits so far, and two of them side by side"
        with gr.Accordion(title, open=False, visible=False, elem_id=labels.EDITS) as self.history:
            self.history_table = gr.HTML(label="Edits so far")
            with gr.Row():
                self.shown = gr.Dropdown([], label="Edit shown", min_width=240)
                self.beside = gr.Dropdown([("its source", "")], value="", label="Beside it", min_width=240)

    def _add_files(self, limits: Limits) -> None:
        with gr.Row():
            self.video_file = gr.DownloadButton("Download the video", min_width=160)
            self.small_file = gr.DownloadButton("The video at the working size", min_width=160, visible=False)
            self.report_file = gr.DownloadButton("Download the report", min_width=160)
            self.project_file = gr.DownloadButton("Save the project", min_width=160)
        gr.HTML(
            views.line(f"The edit and its files are kept here for {limits.kept} after it is made: save what you need.")
        )
        with gr.Accordion("Reproduce this: command line, settings and times", open=False):
            self.command = gr.Code(
                label="In a shell, beside the video", language="shell", lines=2, max_lines=6, wrap_lines=True
            )
            self.report = gr.JSON(label="Report", show_label=False)
