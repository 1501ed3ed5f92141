"""Components for the table of settings, and what they show as a configuration.

A value that is the model's own is asked for as None: it stays the model's when the model changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, Setting, settings_of
from adaflow_core.errors import AdaFlowError

TABLE: dict[str, Setting] = settings_of(PlanConfig) | settings_of(EditConfig)
# The source prompt stands with the video.
PLAN = tuple(name for name in settings_of(PlanConfig) if name != "source_prompt")
EDIT = tuple(settings_of(EditConfig))

# Where the page's words or ranges differ from the table's: it shows the useful part of some ranges.
_OWN: dict[str, dict[str, Any]] = {
    "prune": {"maximum": 0.95, "label": "Pruning ratio"},
    "keyframes": {"maximum": 64},
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
_AUTOMATIC = 0  # where a number must be larger
_SCALES = [("1", 1), ("2x2", 2), ("4x4", 4), ("8x8", 8)]


def add_settings(names: Sequence[str], profile: ModelProfile) -> dict[str, Any]:
    """A component for each of these settings, by name, showing the values of a model's profile."""
    return {name: _component(TABLE[name], profile) for name in names}


def shown_values(names: Sequence[str], profile: ModelProfile, config: Mapping[str, Any] | None = None) -> list[Any]:
    """What the components show for the values of a configuration, by default for one that asks for nothing."""
    return [_shown(TABLE[name], profile, (config or {}).get(name, TABLE[name].default)) for name in names]


def asked_values(names: Sequence[str], profile: ModelProfile, shown: Sequence[Any]) -> dict[str, Any]:
    """The values of a configuration that components showing `shown` ask for."""
    values = {name: _asked(TABLE[name], profile, value) for name, value in zip(names, shown, strict=True)}
    if values.get("kv_frames") is not None:
        values["prune"] = None  # which it stands in place of
    return values


def _own(setting: Setting, profile: ModelProfile) -> Any:
    return getattr(profile, setting.name, None)


def _shown(setting: Setting, profile: ModelProfile, value: Any) -> Any:
    if value is None:
        value = _own(setting, profile)
    if setting.several:
        return list(value)
    if value is None:
        return "" if setting.kind is str or not setting.low else _AUTOMATIC
    return value


def _asked(setting: Setting, profile: ModelProfile, value: Any) -> Any:
    if setting.several:
        return tuple(sorted(value or ()))
    if setting.kind is str and setting.optional:
        return (value or "").strip() or None
    if setting.optional and (value in (None, "", _own(setting, profile)) or (setting.low and not value)):
        return None
    if setting.kind is float:
        return _number(setting, value)
    return int(value) if setting.kind is int and value == int(value) else value


def _component(setting: Setting, profile: ModelProfile) -> Any:
    value, own = _shown(setting, profile, setting.default), _OWN.get(setting.name, {})
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
    automatic = setting.optional and _own(setting, profile) is None
    words["label"] += " (0 = automatic)" if automatic else ""
    span = {"minimum": _AUTOMATIC if automatic else setting.low, "maximum": setting.high}
    if (setting.kind is float and not automatic) or setting.name in ("steps", "keyframes"):
        return gr.Slider(value=value, **span | {"step": 1 if setting.kind is int else 0.05} | words | own)
    return gr.Number(value, **span | ({"precision": 0} if setting.kind is int else {}) | words | own)


def _number(setting: Setting, value: Any) -> float:
    """A number that may have been typed."""
    try:
        return float(value)
    except ValueError:
        raise AdaFlowError(f"{setting.name} is {value!r}; it must be a number") from None


def _info(setting: Setting) -> str:
    """What a setting is and what more of it does, in the page's words."""
    help, _, automatic = setting.help.partition("; auto: ")
    automatic = f" Automatic: {automatic}." if automatic and setting.name != "keyframes" else ""
    return f"{help[0].upper()}{help[1:]}.{automatic} {setting.effect}".strip().replace("--", "")
