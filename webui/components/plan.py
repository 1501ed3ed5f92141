"""Step 2: the settings of a plan, and its keyframes, tokens and timeline."""

from __future__ import annotations

from typing import Any

import gradio as gr

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, Setting, settings_of
from webui import views
from webui.components.heading import heading
from webui.studio import Studio

_PLAN, _EDIT = settings_of(PlanConfig), settings_of(EditConfig)


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
                self._add_main_settings(profile)
                with gr.Accordion("Advanced", open=False):
                    self._add_plan_settings(studio, profile)
                    self._add_edit_settings(profile)
                with gr.Row():
                    self.preview = gr.Button("Preview keyframes", variant="primary", scale=3, min_width=160)
                    self.stop = gr.Button("Stop", scale=1, min_width=80)
                self.status = gr.HTML(label="Progress")
            with gr.Column(scale=8, min_width=320):
                self.placeholder = gr.HTML(
                    label="Before the first preview",
                    value='<p class="af-empty">Keyframes, tokens and timeline will be here.</p>',
                )
                with gr.Column(visible=False) as self.views:
                    self.cost = gr.HTML(label="Cost")
                    with gr.Tabs():
                        self._add_keyframes_tab()
                        self._add_tokens_tab()
                        self._add_timeline_tab()
        self.facts = gr.JSON(label="Plan", visible=False)  # for programs
        self.plan_id, self.job_id, self.model_before = gr.State(""), gr.State(""), gr.State(studio.model)

    def _add_main_settings(self, profile: ModelProfile) -> None:
        self.prune = _slider(_PLAN["prune"], profile.prune, 0.05, maximum=0.95, label="Pruning ratio")
        self.keyframes = _slider(_PLAN["keyframes"], 0, 1, minimum=0, maximum=64, label="Keyframes (0 = automatic)")
        self.scales = gr.CheckboxGroup(
            [("1", 1), ("2x2", 2), ("4x4", 4)],
            value=list(_PLAN["scales"].default),
            **_words(_PLAN["scales"]) | {"label": "Similarity scales, in tokens"},
        )

    def _add_plan_settings(self, studio: Studio, profile: ModelProfile) -> None:
        self.model = gr.Dropdown(
            list(studio.models),
            value=studio.model,
            label="Model",
            info="One that is not on this machine yet is downloaded first, some gigabytes; a GPU is wanted for it."
            + ("" if studio.public else " Or a path; behind it --lora=FILE=0.8, --vae=FILE or --embedding=FILE."),
            allow_custom_value=not studio.public,
            visible=len(studio.models) > 1 or not studio.public,
        )
        self.method, self.importance = _dropdown(_PLAN["method"]), _dropdown(_PLAN["importance"])
        self.side = gr.Dropdown(
            views.working_sizes(profile.size),
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

    def _add_edit_settings(self, profile: ModelProfile) -> None:
        self.steps = _slider(_EDIT["steps"], profile.steps, 1, maximum=100)
        self.guidance = _slider(_EDIT["guidance"], profile.guidance, 0.5, maximum=15)
        self.injection = _slider(
            _EDIT["injection_attention"], profile.injection_attention, 0.05, label="Injection of attention"
        )
        self.injection_conv = _slider(
            _EDIT["injection_conv"], profile.injection_conv, 0.05, label="Injection of features"
        )
        self._add_place_settings(profile)
        self.negative_prompt = gr.Textbox(
            label="Negative prompt",
            value="",
            info="What to move away from. Empty: the model's own default.",
        )
        seed = _EDIT["seed"]
        self.seed = gr.Number(seed.default, precision=0, minimum=seed.low, **_words(seed))

    def _add_place_settings(self, profile: ModelProfile) -> None:
        focus, structure, smoothing = _EDIT["focus"], _EDIT["structure"], _EDIT["smoothing"]
        self.focus = _slider(focus, profile.focus, 0.05, info=_sentences(focus))
        self.structure_by_words = gr.Checkbox(
            True, label="Structure automatic", info=_capital(structure.help.partition("auto: ")[2])
        )
        self.structure = _slider(structure, 1, 0.05, info=_sentences(structure), interactive=False)
        self.smoothing = _slider(smoothing, profile.smoothing, 0.05, info=_sentences(smoothing))

    def _add_keyframes_tab(self) -> None:
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

    def _add_tokens_tab(self) -> None:
        with gr.Tab("Tokens"):
            with gr.Row():
                self.number = gr.Slider(1, 2, 1, step=1, label="Keyframe", min_width=200, scale=3)
                self.grid = gr.Dropdown([], label="Token grid", min_width=140, scale=2)
                self.show = gr.Radio([views.KEPT, views.SCORES], value=views.KEPT, label="Show", min_width=260, scale=4)
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

    def _add_timeline_tab(self) -> None:
        with gr.Tab("Timeline"):
            gr.HTML(views.line("Every frame against its keyframe. Click into a plot to see that frame."))
            self.timeline = _plot("Similarity of every frame to its keyframe")
            self.time_slice = _plot("One pixel column over time", "af-slice")
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


def _words(setting: Setting) -> dict[str, Any]:
    label = setting.name.replace("_", " ").capitalize()
    return {"label": label, "info": setting.effect or _capital(setting.help)}


def _capital(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."


def _sentences(setting: Setting) -> str:
    """What a setting is and what more of it does; without what automatic means."""
    return f"{_capital(setting.help.partition('; auto: ')[0])} {setting.effect}"


def _slider(setting: Setting, value: float, step: float, **own: Any) -> gr.Slider:
    """A slider with the setting's range and words, but for `own`: the page shows the useful part of some ranges."""
    given = {"minimum": setting.low, "maximum": setting.high} | _words(setting) | own
    return gr.Slider(value=value, step=step, **given)


def _dropdown(setting: Setting) -> gr.Dropdown:
    return gr.Dropdown(list(setting.choices), value=setting.default, **_words(setting))


def _plot(label: str, *classes: str) -> gr.Image:
    return gr.Image(
        label=label,
        show_label=False,
        interactive=False,
        buttons=["fullscreen", "download"],
        format="png",
        elem_classes=["af-plot", *classes],
    )
