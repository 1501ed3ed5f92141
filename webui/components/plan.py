"""The components of the page's three steps: video, keyframes and tokens, edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from adaflow_core.config import IMPORTANCE, METHODS, ModelProfile, PlanConfig
from adaflow_core.video import thumbnails
from webui import views
from webui.events import refusal
from webui.plan_events import PlanEvents
from webui.studio import Studio

# Where a browser keeps the id of its last job. The id is what is secret, and it ends with the server.
_STORAGE, _STORAGE_SECRET = "adaflow-job", "adaflow"


def _heading(number: int, title: str, text: str) -> None:
    gr.HTML(f"<h2>{number}. {title}</h2><p>{text}</p>", elem_classes="af-step")


def _only_uploads(video: gr.Video) -> gr.Video:
    """Gradio fetches a video that is given as an address, without a limit on its size; this page does not."""
    keep = video.async_move_resource_to_block_cache

    async def keep_upload(url_or_file_path: str | Path | None) -> str | None:
        if "://" in str(url_or_file_path):
            raise refusal("this page fetches nothing from elsewhere; upload the file itself")
        return await keep(url_or_file_path)

    # Of this one component: a class of its own would have Gradio write a file beside this one when it is imported.
    video.async_move_resource_to_block_cache = keep_upload  # type: ignore[method-assign]
    return video


class VideoStep:
    """Step 1: a video and what is in it."""

    def __init__(self, events: PlanEvents) -> None:
        _heading(1, "Video", f"Upload one ({events.limits}), or start from an example.")
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                self.video = _only_uploads(gr.Video(label="Video", sources=["upload"], height=320))
                self.line = gr.HTML(label="About the video")
                self.source_prompt = gr.Textbox(
                    value="",
                    label="What is in the video (optional)",
                    info="A faithful description makes the edit hold closer to the source.",
                    placeholder="a red ball rolls over a meadow",
                    lines=1,
                )
            with gr.Column(scale=7, min_width=320):
                self.examples = gr.Gallery(
                    [_poster(clip) for clip in events.clips],
                    label="Examples",
                    show_label=False,
                    columns=3,
                    object_fit="cover",
                    elem_classes=["af-gallery", "af-examples"],
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    visible=bool(events.clips),
                )
                self.example_number = gr.Number(0, precision=0, visible=False)


def _poster(clip: dict[str, str]) -> tuple[Any, str]:
    _, pictures = thumbnails(clip["file"], 3, height=160)
    return pictures[len(pictures) // 2], clip["title"]


class PlanStep:
    """Step 2: the sliders, and what comes of them."""

    def __init__(self, studio: Studio) -> None:
        default, profile = PlanConfig(), studio.profile()
        _heading(
            2,
            "Keyframes and tokens",
            "Keyframes are edited together, the other frames follow them. Preview, then move a slider.",
        )
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                self.prune = gr.Slider(
                    0,
                    0.95,
                    profile.prune,
                    step=0.05,
                    label="Pruning ratio",
                    info="More: keyframes see fewer of each other's tokens; faster, less memory.",
                )
                self.keyframes = gr.Slider(
                    0,
                    64,
                    0,
                    step=1,
                    label="Keyframes (0 = automatic)",
                    info="More: fast changes are followed more closely, at more time and memory.",
                )
                self.scales = gr.CheckboxGroup(
                    [("1", 1), ("2x2", 2), ("4x4", 4)],
                    value=list(default.scales),
                    label="Similarity scales, in tokens",
                    info="More: frames must agree in detail and at large to share a keyframe.",
                )
                self._advanced(studio, profile, default)
                with gr.Row():
                    self.preview = gr.Button("Preview keyframes", variant="primary", scale=3, min_width=160)
                    self.stop = gr.Button("Stop", scale=1, min_width=80)
                self.status = gr.HTML(label="Progress")
            with gr.Column(scale=8, min_width=320):
                self.empty = gr.HTML(
                    label="Before the first preview",
                    value='<p class="af-empty">Keyframes, tokens and timeline will be here.</p>',
                )
                with gr.Column(visible=False) as self.views:
                    self._views()
        self.facts = gr.JSON(label="Plan", visible=False)  # for programs
        self.id, self.job, self.model_before = gr.State(""), gr.State(""), gr.State(studio.model)

    def _advanced(self, studio: Studio, profile: ModelProfile, default: PlanConfig) -> None:
        with gr.Accordion("Advanced", open=False):
            self.model = gr.Dropdown(
                list(studio.models),
                value=studio.model,
                label="Model",
                info="One that is not on this machine yet is downloaded first, some gigabytes; a GPU is wanted for it.",
                visible=len(studio.models) > 1,
            )
            self.method = gr.Dropdown(
                list(METHODS),
                value=default.method,
                label="Method",
                info="The others are baselines: even keyframes, all frames jointly, each frame alone, TokenFlow.",
            )
            self.importance = gr.Dropdown(
                list(IMPORTANCE),
                value=default.importance,
                label="Importance",
                info="Which tokens weigh more.",
            )
            self.side = gr.Dropdown(
                views.sides(profile.size),
                value=0,
                label="Working size",
                info="Pixels of the shorter side.",
            )
            self.frames = gr.Textbox(
                label="Frame range",
                info="FIRST:END, END not included. Empty: all frames.",
                value="",
                placeholder="0:48",
            )
            self.steps = gr.Slider(
                1,
                100,
                profile.steps,
                step=1,
                label="Steps",
                info="More: finer pictures, and proportionally slower.",
            )
            self.guidance = gr.Slider(
                1,
                15,
                profile.guidance,
                step=0.5,
                label="Guidance",
                info="More: closer to the prompt, less natural. At 1 there is none, and an edit is a third faster.",
            )
            self.injection = gr.Slider(
                0,
                1,
                profile.injection_attention,
                step=0.05,
                label="Injection of attention",
                info="More: holds the source's layout for longer. To change an object's kind, take less.",
            )
            self.injection_conv = gr.Slider(
                0,
                1,
                profile.injection_conv,
                step=0.05,
                label="Injection of features",
                info="More: holds the source's shapes for longer.",
            )
            self.negative = gr.Textbox(
                label="Negative prompt",
                value="",
                info="What to move away from. Empty: the model's own habit.",
            )
            self.seed = gr.Number(0, precision=0, minimum=0, label="Seed", info="Same seed, same video.")

    def _views(self) -> None:
        self.cost = gr.HTML(label="Cost")
        with gr.Tabs():
            with gr.Tab("Keyframes"):
                gr.HTML(views.line("In time order. Choose one to see under Tokens what it keeps of the others."))
                self.gallery = gr.Gallery(
                    label="Keyframes in time order",
                    show_label=False,
                    columns=4,
                    elem_classes="af-gallery",
                    object_fit="contain",
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                )
            with gr.Tab("Tokens"):
                with gr.Row():
                    self.number = gr.Slider(1, 2, 1, step=1, label="Keyframe", min_width=200, scale=3)
                    self.grid = gr.Dropdown([], label="Token grid", min_width=140, scale=2)
                    self.show = gr.Radio(
                        [views.KEPT, views.SCORES], value=views.KEPT, label="Show", min_width=260, scale=4
                    )
                self.sentence = gr.HTML(label="What is shown")
                with gr.Row():
                    with gr.Column(scale=2, min_width=160):
                        self.selected = gr.Image(
                            label="Keyframe 1", interactive=False, buttons=[], format="webp", height=210
                        )
                    with gr.Column(scale=6, min_width=300):
                        self.tokens = gr.Gallery(
                            label="What it keeps of every other keyframe",
                            show_label=False,
                            columns=3,
                            elem_classes=["af-gallery", "af-tokens"],
                            object_fit="contain",
                            buttons=["fullscreen"],
                            interactive=False,
                        )
            with gr.Tab("Timeline"):
                gr.HTML(views.line("Every frame against its keyframe. Click into a plot to see that frame."))
                self.timeline = gr.Image(
                    label="Similarity of every frame to its keyframe",
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen", "download"],
                    format="png",
                    elem_classes="af-plot",
                )
                self.slice = gr.Image(
                    label="One pixel column over time",
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen", "download"],
                    format="png",
                    elem_classes="af-plot",
                )
                with gr.Row():
                    with gr.Column(scale=4, min_width=240):
                        self.frame = gr.Slider(0, 1, 0, step=1, label="Frame")
                        self.frame_sentence = gr.HTML(label="About the frame")
                    with gr.Column(scale=4, min_width=240):
                        self.frame_picture = gr.Image(
                            label="Similarity to its keyframe",
                            interactive=False,
                            buttons=[],
                            format="webp",
                            height=300,
                        )

    @property
    def shown(self) -> list[Any]:
        """Outputs of a preview, in the order of `handlers._plan_views`."""
        return [
            self.facts,
            self.empty,
            self.views,
            self.cost,
            self.gallery,
            self.timeline,
            self.slice,
            self.number,
            self.grid,
            self.frame,
        ]


class EditStep:
    """Step 3: the prompt, the long job and its result."""

    def __init__(self, studio: Studio) -> None:
        _heading(3, "Edit", "Say what the edited video should show. The job goes on if you close this page.")
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=300):
                self.prompt = gr.Textbox(
                    value="", label="Prompt", placeholder="a blue ball rolls over snow", lines=1, max_lines=3
                )
                self.words = gr.HTML(label="Doubts about the prompt")
            with gr.Column(scale=3, min_width=220), gr.Row():
                self.start = gr.Button("Edit", variant="primary", min_width=100)
                self.stop = gr.Button("Stop", min_width=80)
        known = studio.profile().vocabulary
        with gr.Accordion(views.vocabulary_title(known), open=False, visible=bool(known)) as self.known:
            self.known_words = gr.HTML(views.vocabulary(known), label="Known words")
        self.progress = gr.HTML(label="Progress")
        with gr.Column(visible=False) as self.result:
            self.about = gr.HTML(label="Prompt of the edit")
            with gr.Row():
                self.source = gr.Video(
                    label="Source, as it was edited",
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
            self.scores = gr.HTML(label="Scores")
            self.warnings = gr.HTML(label="Warnings")
            with gr.Accordion("Compare frame by frame", open=False) as self.comparer:
                self.compared = gr.ImageSlider(
                    label="Source and edit, one frame", show_label=False, interactive=False, buttons=["fullscreen"],
                    max_height=520,
                    elem_classes="af-compare",
                )  # fmt: skip
                self.compared_frame = gr.Slider(0, 1, 0, step=1, label="Frame to compare")
                self.compared_line = gr.HTML(label="About the compared frame")
            with gr.Row():
                self.video_file = gr.DownloadButton("Download the video", min_width=160)
                self.report_file = gr.DownloadButton("Download the report", min_width=160)
            with gr.Accordion("Reproduce this: command line, settings and times", open=False):
                self.command = gr.Code(
                    label="In a shell, beside the video", language="shell", lines=2, max_lines=6, wrap_lines=True
                )
                self.report = gr.JSON(label="Report", show_label=False)
        self.job = gr.Textbox(label="Job", visible=False)
        self.status = gr.JSON(label="Status", visible=False)  # for programs
        self.remembered = gr.BrowserState("", storage_key=_STORAGE, secret=_STORAGE_SECRET)

    @property
    def shown(self) -> list[Any]:
        """Outputs of `watch`."""
        return [
            self.status,
            self.progress,
            self.result,
            self.about,
            self.source,
            self.edited,
            self.compared_frame,
            self.compared,
            self.compared_line,
            self.scores,
            self.warnings,
            self.video_file,
            self.report_file,
            self.command,
            self.report,
        ]
