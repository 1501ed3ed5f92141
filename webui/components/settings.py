"""A component for each row of the table of settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from adaflow_core.config import ModelProfile, Setting
from webui.settings import AUTOMATIC, RESERVED, TABLE, own_value, shown_value

# Where the page's words or ranges differ from the table's: it shows the useful part of some ranges.
_OWN: dict[str, dict[str, Any]] = {
    "prune": {"maximum": 0.95, "label": "Pruning ratio"},
    "keyframes": {"maximum": 64},
    "keyframes_at": {"label": "Keyframes set by hand", "placeholder": "3,10,17"},
    "scales": {"label": "Similarity scales, in tokens"},
    "kv_frames": {"label": "Frames' worth of tokens to keep (0 = as the pruning ratio says)", "info": ""},
    "steps": {"minimum": 1, "maximum": 100},
    "guidance": {"maximum": 15, "step": 0.5},
    "injection_attention": {"label": "Injection of attention"},
    "injection_conv": {"label": "Injection of features"},
    "similarity": {"minimum": 0},
    "window_similarity": {"minimum": 0},
    "residual": {"maximum": 2},
    "negative_prompt": {"info": "What to move away from. Empty: the model's own default."},
    "propagation": {"info": "What frames take from keyframes: the edit's change, or the edited outputs."},
    "chunk": {"label": "Frames per call of the UNet (0 = automatic)"},
}
_SCALES = [("1", 1), ("2x2", 2), ("4x4", 4), ("8x8", 8)]


def add_settings(names: Sequence[str], profile: ModelProfile, public: bool = False) -> dict[str, Any]:
    """A component for each of these settings, by name, showing the values of a model's profile."""
    made = {name: _component(TABLE[name], profile) for name in names}
    for name in RESERVED:
        if public and name in made:
            made[name].visible = False
    return made


def _component(setting: Setting, profile: ModelProfile) -> Any:
    value, own = shown_value(setting, profile, setting.default), _OWN.get(setting.name, {})
    words = {"label": setting.name.replace("_", " ").capitalize(), "info": _info(setting)}
    if setting.several:
        return gr.CheckboxGroup(_SCALES, value=value, **words | own)
    if setting.choices:
        return gr.Dropdown(list(setting.choices), value=value, **words | own)
    if setting.kind is bool:
        return gr.Checkbox(value, **words | own)
    if setting.kind is str:
        return gr.Textbox(value, **words | own)
    if value == "":
        choices: list[Any] = [("automatic", ""), *((f"{part:g}", part) for part in (0.0, 0.25, 0.5, 0.75, 1.0))]
        return gr.Dropdown(choices, value=value, allow_custom_value=True, **words | own)
    automatic = setting.optional and own_value(setting, profile) is None
    words["label"] += " (0 = automatic)" if automatic else ""
    span = {"minimum": AUTOMATIC if automatic else setting.low, "maximum": setting.high}
    if (setting.kind is float and not automatic) or setting.name in ("steps", "keyframes"):
        return gr.Slider(value=value, **span | {"step": 1 if setting.kind is int else 0.05} | words | own)
    return gr.Number(value, **span | ({"precision": 0} if setting.kind is int else {}) | words | own)


def _info(setting: Setting) -> str:
    """What a setting is and what more of it does, in the page's words."""
    help, _, automatic = setting.help.partition("; auto: ")
    automatic = f" Automatic: {automatic}." if automatic and setting.name != "keyframes" else ""
    return f"{help[0].upper()}{help[1:]}.{automatic} {setting.effect}".strip().replace("--", "")
