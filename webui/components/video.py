"""Step 1: a video and what is in it."""

from __future__ import annotations

import gradio as gr

from webui import views
from webui.components.examples import poster
from webui.components.heading import heading
from webui.studio import Studio


class VideoStep:
    def __init__(self, studio: Studio, clips: list[dict[str, str]]) -> None:
        heading(1, "Video", f"Upload one ({studio.limits}), or start from an example.")
        with gr.Row(equal_height=False):
            self.toy = gr.HTML(views.toy(studio.profile()), label="What this model can do")
            larger = studio.larger_model()
            self.larger = gr.Button(f"Use {larger}", size="sm", min_width=160, scale=0, visible=bool(larger))
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                self.video = gr.Video(label="Video", sources=["upload"], height=320, elem_classes="af-video")
                self.line = gr.HTML(label="About the video")
                self.playable = gr.Video(
                    label="Its first seconds, as a small copy", height=240, visible=False, elem_classes="af-copy"
                )
                self.open_project = gr.UploadButton("Open a project", file_types=[".json"], size="sm")
                self.project_line = gr.HTML(label="About the project")
                self.source_prompt = gr.Textbox(
                    value="",
                    label="What is in the video (optional)",
                    info="A faithful description makes the edit hold closer to the source.",
                    placeholder="a red ball rolls over a meadow",
                    lines=1,
                )
            with gr.Column(scale=7, min_width=320):
                self.examples = gr.Gallery(
                    [poster(clip) for clip in clips],
                    label="Examples",
                    show_label=False,
                    columns=3,
                    object_fit="cover",
                    elem_classes=["af-gallery", "af-choice", "af-examples"],
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    visible=bool(clips),
                )
                # Changed in place: the video that is described, and those that the page itself shows next.
                self.described, self.expected = gr.State([]), gr.State([])
                self.video_id = gr.Textbox(label="Video's id", visible=False)
