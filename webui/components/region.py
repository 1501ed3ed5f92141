"""Within step 3: a part of the picture to edit, keyframes by hand, and the size of what is delivered."""

from __future__ import annotations

import gradio as gr

from adaflow_core.config import DELIVERIES
from adaflow_core.picture.region import FEATHER
from webui import views
from webui.kept import OverState
from webui.settings import FIRST
from webui.views import labels

_RED = "#e5484d"


class RegionPart:
    def __init__(self) -> None:
        self.over = gr.State(OverState())  # what was painted and given back
        self.over_id = gr.Textbox("", label="Id of what was painted and given back", visible=False)
        self.region_job_id = gr.State("")
        self.deliver = gr.Radio(
            list(DELIVERIES), value="source", label="Delivered size",
            info="The source's own size, with what the edit changed laid over it, or the working size.",
        )  # fmt: skip
        with gr.Accordion("Only a part of the picture", open=False):
            self._add_region()
        with gr.Accordion("Keyframes edited by hand", open=False):
            self._add_by_hand()

    def _add_region(self) -> None:
        gr.HTML(
            views.line(
                "Name a thing of the source prompt, or paint on one frame what the edit may change, or give a box "
                "there; it is carried to all others. Where it is wrong, load that frame, and add what is missing or "
                "take away what is too much."
            )
        )
        with gr.Row():
            self.region_words = gr.Textbox(
                label="Words of the source prompt", placeholder="ball", max_lines=1, min_width=160
            )
            self.find_words = gr.Button("Find it", min_width=100)
            self.feather = gr.Slider(
                0, 64, FEATHER, step=1, precision=0, label="Feather (pixels)", min_width=200, buttons=["reset"]
            )
        with gr.Row():
            self.painted_frame = gr.Number(
                FIRST["painted_frame"], precision=0, minimum=0, label="Frame to paint on", min_width=140
            )
            self.load_frame = gr.Button("Load the frame", min_width=120)
            self.strokes = gr.Radio(
                [labels.PAINT_IN, labels.PAINT_OUT],
                value=labels.PAINT_IN,
                show_label=False,
                label="What is painted",
                min_width=240,
            )
        with gr.Row():
            self.box_left, self.box_top, self.box_right, self.box_bottom = (
                gr.Number(FIRST[f"box_{side}"], minimum=0, maximum=100, label=f"{side.title()} (%)", min_width=110)
                for side in ("left", "top", "right", "bottom")
            )
            self.use_box = gr.Button("Use the box", min_width=120)
        self.loaded = gr.State(None)  # the frame on the canvas, and the digest of the frames that it is of
        self.canvas = gr.ImageEditor(
            label="Paint", type="numpy", sources=[], transforms=[], height=420, elem_classes="af-canvas",
            layers=gr.LayerOptions(allow_additional_layers=False),
            brush=gr.Brush(default_size=24, colors=[_RED], default_color=_RED, color_mode="fixed"),
        )  # fmt: skip
        with gr.Row():
            self.use_strokes = gr.Button("Use what is painted", min_width=160)
            self.no_region = gr.Button("Edit the whole picture", min_width=160)
        self.region_progress = gr.HTML(label="Progress of the region", elem_classes="af-status")
        self.region_line = gr.HTML(label="About the region")
        self.region_gallery = _gallery("The region over the video", visible=False)

    def _add_by_hand(self) -> None:
        gr.HTML(
            views.line(
                "Download a keyframe, change it in any program, and give it back: the change goes on through the "
                "video. Without a prompt nothing else is edited."
            )
        )
        with gr.Row():
            self.keyframe = gr.Dropdown([], label="Keyframe to change", min_width=160)
            self.keyframe_of = gr.Radio(
                [labels.THE_SOURCE, labels.THE_DRAFT], value=labels.THE_SOURCE, label="Taken from"
            )
            self.keyframe_file = gr.DownloadButton("Download the keyframe", min_width=160)
            self.give_back = gr.UploadButton("Give it back", file_types=["image"], min_width=120)
            self.take_back = gr.Button("None by hand", min_width=120)
        self.hand_line = gr.HTML(label="About the keyframes by hand")
        self.hand_gallery = _gallery("Keyframes by hand", visible=False)


def _gallery(label: str, visible: bool) -> gr.Gallery:
    return gr.Gallery(
        label=label, show_label=False, columns=4, object_fit="contain", interactive=False, visible=visible,
        elem_classes="af-gallery", buttons=["fullscreen"],
    )  # fmt: skip
