"""What each model carries as its own, and settings with all that was left open filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from adaflow_core.config.edit import EditConfig
from adaflow_core.config.filled import FilledEdit
from adaflow_core.config.plan import MAX_KEYFRAMES, MAX_KEYFRAMES_CPU, METHODS, PlanConfig
from adaflow_core.config.table import ConfigError

# In fewer steps than a model's own the inversion misses more; all of it added back would flicker more.
FIDELITY_IN_FEWER_STEPS = 0.5
AGREE_EVERY = 6  # steps for each time that frames are brought to agree, where it is not said how often


@dataclass(frozen=True)
class ModelProfile:
    """The values that belong to a checkpoint: read from its `adaflow.json`, else Stable Diffusion's."""

    size: int = 512  # pixels of the shorter side that the model was trained for
    steps: int = 25
    inversion_steps: int = 25
    guidance: float = 7.0  # a little under the 7.5 usual elsewhere, for what `fidelity` costs in calm
    guided: float = 0.6  # the last steps need guidance least, and without it a step is a third cheaper
    negative: Literal["empty", "source"] = "empty"  # what the guidance points away from by default
    injection_attention: float = 0.5
    injection_conv: float = 0.8
    rescale: float = 0.0  # on the plain model it gains nothing
    focus: float = 1.0
    coarse: float | None = None  # as the words say; a model may be lost without its source's light
    agreements: int = 3
    smoothing: float = 0.95
    fidelity: float = 1.0  # with less the edit is less sharp than the source
    tolerance: float = 0.0
    prune: float = 0.8  # as near to the truth as 0.6, with 48 keyframes a fifth to a third faster in their joint pass
    similarity: float = 0.75
    window_similarity: float = 0.6
    residual: float = 0.35  # as many keyframes as the embedded model has at this value
    feature_block: int = 2  # up block whose output is the feature
    feature_timestep: int = 1
    vocabulary: tuple[str, ...] = field(default=())  # empty: open
    words: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())  # the main ones of it, by kind; a JSON object

    @classmethod
    def load(cls, folder: Path) -> ModelProfile | None:
        """The profile in `folder`, or None if it carries none."""
        path = folder / "adaflow.json"
        if not path.is_file():
            return None
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            data.pop("cut", None)  # a threshold of older versions; cuts are found in the pixels
            data["words"] = tuple((kind, tuple(words)) for kind, words in data.get("words", {}).items())
        except (OSError, ValueError, AttributeError, TypeError) as problem:
            raise ConfigError(f"{path} cannot be read ({problem}); fetch it again, or take it away") from problem
        usual = {f.name: f.default for f in fields(cls)}
        unknown = sorted(set(data) - set(usual))
        if unknown:
            raise ConfigError(f"{path} holds unknown settings: {', '.join(unknown)}; fetch it again, or take it away")
        data["vocabulary"] = tuple(data.get("vocabulary", ()))
        for name, value in data.items():
            kinds = (int, float) if usual[name] is None or isinstance(usual[name], float) else type(usual[name])
            if not isinstance(value, kinds):
                raise ConfigError(f"{path}: {name} is {value!r}; fetch the file again, or take it away")
        return cls(**data)

    def within(self, max_steps: int | None, steps: int | None) -> ModelProfile:
        """The same where the model takes at most so many steps by itself; None: as many as it takes.

        `steps`: those that are asked for in their place, if any.
        """
        own = self.steps if max_steps is None else min(self.steps, max_steps)
        found = self if own == self.steps else replace(self, steps=own, inversion_steps=self.inversion_steps_for(own))
        fewer = max_steps is not None and (steps or own) < self.steps
        return replace(found, fidelity=min(self.fidelity, FIDELITY_IN_FEWER_STEPS)) if fewer else found

    def inversion_steps_for(self, steps: int | None) -> int:
        """The profile's ratio of inversion to edit steps, kept when the user changes the steps."""
        return max(1, round(self.inversion_steps / self.steps)) * (steps or self.steps)

    def agreements_for(self, steps: int | None, plan: PlanConfig) -> int:
        """The profile's number, less often where the user takes fewer steps, and never where each frame is alone."""
        most = max(1, (steps or self.steps) // AGREE_EVERY) if METHODS[plan.method].joint else 0
        return min(self.agreements, most)


def _own_values(config: PlanConfig | EditConfig, profile: ModelProfile) -> dict[str, Any]:
    """The profile's values of the fields that `config` leaves at None."""
    return {name: value for name, value in vars(profile).items() if getattr(config, name, ...) is None}


def resolve_plan(config: PlanConfig, profile: ModelProfile, device: str) -> PlanConfig:
    """`config` with every None that the model or the device (its type) decides filled in."""
    own = _own_values(config, profile)
    if config.kv_frames is not None:
        own["prune"] = None
    if config.max_keyframes is None:
        own["max_keyframes"] = MAX_KEYFRAMES_CPU if device == "cpu" else MAX_KEYFRAMES
    return replace(config, **own, resample=config.resample or METHODS[config.method].resamples)


def resolve_edit(config: EditConfig, profile: ModelProfile, plan: PlanConfig) -> FilledEdit:
    """`config` with every None that the model or the plan decides filled in.

    What the words and the device decide (`structure`, `stride`, `chunk` and others) is left as it is.
    """
    profile = profile.within(config.max_steps, config.steps)
    own = _own_values(config, profile)
    if config.inversion_steps is None:
        own["inversion_steps"] = profile.inversion_steps_for(config.steps)
    if config.negative_prompt is None:
        own["negative_prompt"] = plan.source_prompt if profile.negative == "source" else ""
    if plan.resample or METHODS[plan.method].resamples:  # carried frames need keyframes that stay
        own["stride"] = 1
    if config.agreements is None:
        own["agreements"] = profile.agreements_for(config.steps, plan)
    return FilledEdit(**vars(replace(config, **own)))
