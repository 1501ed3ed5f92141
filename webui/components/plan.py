"""Step 2: the settings of a plan, and its keyframes, tokens and timeline."""

from __future__ import annotations

import gradio as gr

from webui import views
from webui.components import settings
from webui.components.heading import heading
from webui.jobs.queue import Begun
from webui.settings import PLAN
from webui.studio import Studio
from webui.views import labels

_MAIN = ("prune", "keyframes", "scales")


class PlanStep:
    def __init__(self, studio: Studio) -> None:
        profile = studio.profile()
        heading(
            2,
            "Keyframes and tokens",
            "Keyframes are edited together, the other frames follow them. Preview, then move a slider.",
        )
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                self.settings = settings.add_settings(_MAIN, profile)
                with gr.Accordion("Advanced", open=False):
                    self._add_choices(studio, profile.size)
                    self.settings |= settings.add_settings(("method", "importance"), profile)
                    with gr.Accordion("More", open=False):
                        others = [name for name in PLAN if name not in self.settings]
                        self.settings |= settings.add_settings(others, profile, studio.public)
                    self.reset = gr.Button("Back to the model's own settings", size="sm")
                with gr.Row():
                    self.preview = gr.Button(
                        "Preview keyframes", variant="primary", scale=3, min_width=160, elem_classes="af-first"
                    )
                    self.stop = gr.Button("Stop", scale=1, min_width=80, elem_classes="af-stop-preview")
                self.status = gr.HTML(label="Progress", elem_classes="af-status")
                self.stale = gr.HTML(label="Whether the preview is of these settings")
            with gr.Column(scale=8, min_width=320):
                self.placeholder = gr.HTML(
                    label="Before the first preview",
                    value='<p class="af-empty">Keyframes, tokens and timeline will be here.</p>',
                )
                with gr.Column(visible=False, elem_classes="af-views") as self.views:
                    self.cost = gr.HTML(label="Cost")
                    with gr.Tabs() as self.tabs:
                        self._add_keyframes_tab()
                        self._add_tokens_tab()
                        self._add_timeline_tab()
                    self.save: dict[str, gr.Button] = {}
                    self._add_files()
        self.facts = gr.JSON(label="Plan", visible=False)  # for programs
        self.plan_id, self.model_before, self.begun = gr.State(""), gr.State(studio.model), gr.State(Begun())

    def _add_choices(self, studio: Studio, size: int) -> None:
        self.model = gr.Dropdown(
            list(studio.models),
            value=studio.model,
            label="Model",
            info="One that is not on this machine yet is downloaded first, some gigabytes; a GPU is wanted for it."
            + ("" if studio.public else " Or a path; behind it --lora=FILE=0.8, --vae=FILE or --embedding=FILE."),
            allow_custom_value=not studio.public,
            visible=len(studio.models) > 1 or not studio.public,
        )
        self.side = gr.Dropdown(
            views.working_sizes(size),
            value=0,
            label="Working size",
            info="Pixels of the shorter side, or WIDTHxHEIGHT.",
            allow_custom_value=True,
        )
        self.frames = gr.Textbox(
            label="Frame range",
            info="FIRST:END, END not included. Empty: all frames.",
            value="",
            placeholder="0:48",
        )

    def _add_keyframes_tab(self) -> None:
        with gr.Tab("Keyframes", id="keyframes"):
            gr.HTML(views.line("In time order. Choose one to see what it keeps of the others."))
            self.gallery = gr.Gallery(
                label="Keyframes in time order",
                show_label=False,
                columns=4,
                elem_classes=["af-gallery", "af-choice"],
                object_fit="contain",
                allow_preview=False,
                buttons=[],
                interactive=False,
            )

    def _add_tokens_tab(self) -> None:
        with gr.Tab("Tokens", id="tokens"):
            with gr.Row():
                self.number = gr.Slider(1, 2, 1, step=1, label="Keyframe", min_width=200, scale=3)
                self.grid = gr.Dropdown([], label="Token grid", min_width=140, scale=2)
                self.show = gr.Radio(
                    [labels.KEPT, labels.SCORES], value=labels.KEPT, label="Show", min_width=260, scale=4
                )
            self.sentence = gr.HTML(label="What is shown")
            with gr.Row():
                with gr.Column(scale=2, min_width=160):
                    self.selected = gr.Image(
                        label="Keyframe 1", interactive=False, buttons=[], format="webp", height=210
                    )
                with gr.Column(scale=6, min_width=300):
                    self.tokens = _pictures("What it keeps of every other keyframe")

    def _add_timeline_tab(self) -> None:
        with gr.Tab("Timeline", id="timeline"):
            gr.HTML(views.line("Every frame against its keyframe. Click into a plot to see that frame."))
            self.timeline = _plot("Similarity of every frame to its keyframe")
            self.time_slice = _plot("One pixel column over time", "af-slice")
            self.window = gr.State(None)  # first and end of the frames that the plots show; None: all
            with gr.Row():
                self.zoom = gr.Slider(
                    1, 2, 1, step=1, label="Zoom, around the frame below", min_width=240, elem_classes="af-zoom"
                )
                self.column = gr.Slider(0, 1, 0, step=1, label="Pixel column", min_width=240)
            with gr.Row():
                with gr.Column(scale=4, min_width=240):
                    self.frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_classes="af-frame")
                    self.frame_sentence = gr.HTML(label="About the frame")
                    self._add_hand()
                with gr.Column(scale=4, min_width=240):
                    self.frame_picture = gr.Image(
                        label="Similarity to its keyframe",
                        interactive=False,
                        buttons=[],
                        format="webp",
                        height=300,
                        elem_classes="af-frame-picture",
                    )
            self.x, self.y = (gr.Number(0, label=f"Point's {axis}, in pixels", visible=False) for axis in "xy")
            self.match_sentence = gr.HTML(label="About the point")
            self.matches = _pictures("The point and its matches in the keyframes", visible=False)

    def _add_hand(self) -> None:
        gr.HTML(
            views.line("Set keyframes yourself, and the plan follows. Click into the picture to see a point's matches.")
        )
        with gr.Row():
            self.hand = {action: gr.Button(action, size="sm", min_width=110) for action in labels.HAND}

    def _add_files(self) -> None:
        with gr.Row():
            for kind, words in (("json", "Save the plan (JSON)"), ("npz", "Save its arrays (npz)")):
                self.save[kind] = gr.Button(words, size="sm", min_width=150)
        self.file_kind = gr.Textbox("json", label="Kind of file", visible=False)
        self.plan_file = gr.DownloadButton("The plan's file", elem_classes="af-plan-file")


def _plot(label: str, *classes: str) -> gr.Image:
    return gr.Image(
        label=label,  # page.css hides it, and js/access.js names the picture by it
        interactive=False,
        buttons=["fullscreen", "download"],
        format="png",
        elem_classes=["af-plot", *classes],
    )


def _pictures(label: str, visible: bool = True) -> gr.Gallery:
    """Keyframes with what is marked in them."""
    return gr.Gallery(
        label=label, show_label=False, columns=3, elem_classes=["af-gallery", "af-tokens"], object_fit="contain",
        buttons=["fullscreen"], interactive=False, visible=visible,
    )  # fmt: skip
