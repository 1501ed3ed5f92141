"""The table of settings on the page, and the conversion between configurations and what components show.

A value equal to the model's own becomes None in the configuration, so that it follows the model when that changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from adaflow_core.config import BY_WORDS, EditConfig, ModelProfile, PlanConfig, Setting, settings_of
from adaflow_core.errors import AdaFlowError

TABLE: dict[str, Setting] = settings_of(PlanConfig) | settings_of(EditConfig)
# The source prompt is shown with the video.
PLAN = tuple(name for name in settings_of(PlanConfig) if name != "source_prompt")
# Steps are shown as they are within a limit on them.
EDIT = tuple(name for name in settings_of(EditConfig) if name != "max_steps")
ALL = (*PLAN, *EDIT)
# Settings of the edit that change neither its time nor its memory.
_NOT_FORECAST = {"negative_prompt", "rescale", "structure", "coarse", "outlines", "seed", "variation"}
FORECAST = tuple(name for name in EDIT if name not in _NOT_FORECAST)  # those that a plan's forecast needs
# Strangers could exhaust the memory with these, so on a public page they stay automatic.
RESERVED = ("max_keyframes", "chunk")
LEFT_TO_WORDS = (*BY_WORDS, "coarse")  # shown as automatic, whichever models have a value of their own
# First values of fields that are no part of a configuration, also shown again with another video.
FIRST: dict[str, float] = {
    "retake_seed": 1, "retake_variation": 0.3,
    "painted_frame": 0, "box_left": 25, "box_top": 25, "box_right": 75, "box_bottom": 75,
}  # fmt: skip
AUTOMATIC = 0  # shown for "automatic" where a number must be larger

Handler = TypeVar("Handler", bound=Callable[..., Any])


def named(*names: str) -> Callable[[Handler], Handler]:
    """Give a handler whose last parameter is `*shown` one named parameter per setting, for the page's API."""

    def name(handler: Handler) -> Handler:
        own = [p for p in signature(handler).parameters.values() if p.kind is not Parameter.VAR_POSITIONAL]
        taken = [Parameter(each, Parameter.POSITIONAL_OR_KEYWORD) for each in names]
        handler.__signature__ = Signature([*own, *taken])  # type: ignore[attr-defined]
        return handler

    return name


def shown_values(names: Sequence[str], profile: ModelProfile, config: Mapping[str, Any] | None = None) -> list[Any]:
    """Return what the components show for `config`, or for a configuration of defaults."""
    return [shown_value(TABLE[name], profile, (config or {}).get(name, TABLE[name].default)) for name in names]


def asked_values(
    names: Sequence[str], profile: ModelProfile, shown: Sequence[Any], public: bool = False
) -> dict[str, Any]:
    """The values of a configuration that components showing `shown` ask for; `public`: on a page for strangers."""
    values = {name: _asked(TABLE[name], profile, value) for name, value in zip(names, shown, strict=True)}
    if public:
        values |= {name: None for name in RESERVED if name in values}
    if values.get("kv_frames") is not None:
        values["prune"] = None  # `kv_frames` replaces it
    return values


def own_value(setting: Setting, profile: ModelProfile) -> Any:
    """The model's own value of a setting; None where it has none, or the words that differ may say otherwise."""
    return None if setting.name in LEFT_TO_WORDS else getattr(profile, setting.name, None)


def shown_value(setting: Setting, profile: ModelProfile, value: Any) -> Any:
    if value is None:
        value = own_value(setting, profile)
    if setting.several:
        return list(value)
    if value is None:
        return "" if setting.kind is str or not setting.low else AUTOMATIC
    return value


def _asked(setting: Setting, profile: ModelProfile, value: Any) -> Any:
    if value is None and not setting.optional:  # a field that was cleared
        return setting.default
    if setting.several:
        return tuple(sorted(value or ()))
    if setting.kind is str and setting.optional:
        return (value or "").strip() or None
    if setting.optional and (value in (None, "", own_value(setting, profile)) or (setting.low and not value)):
        return None
    if setting.kind is float:
        return _number(setting, value)
    return int(value) if setting.kind is int and isinstance(value, float) and value.is_integer() else value


def _number(setting: Setting, value: Any) -> float:
    """A number that may have been typed."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise AdaFlowError(f"{setting.name} is {value!r}; it must be a number") from None
