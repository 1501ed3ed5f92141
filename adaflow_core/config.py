"""Settings: frozen dataclasses that check themselves, presets, and what each model carries as its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from adaflow_core.errors import AdaFlowError

MethodName = Literal["adaflow", "uniform", "joint", "per-frame", "tokenflow"]
Importance = Literal["uniform", "attention", "distinctive", "prompt"]
Propagation = Literal["change", "output"]
Refinement = Literal["none", "move", "split"]

PROPAGATION: tuple[str, ...] = get_args(Propagation)
IMPORTANCE: tuple[str, ...] = get_args(Importance)
# How many keyframes the thresholds may ask for; the joint pass grows with their square.
MAX_KEYFRAMES, MAX_KEYFRAMES_CPU = 96, 32
_SETTINGS_BYTES = 16 * 2**20  # of a file of settings that are read; a report of 10,000 frames has less


@dataclass(frozen=True)
class Method:
    """What sets one method of planning apart from the others."""

    spacing: Literal["adaptive", "even", "every frame"]  # of the keyframes
    joint: bool = True  # whether keyframes attend to each other's tokens
    pruned: bool = False  # and, if so, only to those that slimming keeps
    finds_cuts: bool = True
    matched_by_layer: bool = False  # by each layer's own features, while it edits
    resamples: bool = False  # keyframes at every step, whatever the settings say


METHODS: dict[str, Method] = {
    "adaflow": Method("adaptive", pruned=True),
    "uniform": Method("even"),
    "joint": Method("every frame"),
    "per-frame": Method("every frame", joint=False),
    # arXiv 2307.10373
    "tokenflow": Method("even", finds_cuts=False, matched_by_layer=True, resamples=True),
}


class ConfigError(AdaFlowError, ValueError):
    """A setting is out of range; the message names the field, its value and the range."""


def _within(config: object, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    # `not (low <= value <= high)` also catches nan.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (low <= value <= high):
        raise ConfigError(f"{name} is {value!r}; it must lie between {low:g} and {high:g}")


def _whole(config: object, name: str, low: int, high: int) -> None:
    _within(config, name, low, high)
    if not isinstance(getattr(config, name), int):
        raise ConfigError(f"{name} is {getattr(config, name)!r}; it must be a whole number")


def _typed(config: object, kind: type, remedy: str, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(config, name), kind):
            raise ConfigError(f"{name} is {getattr(config, name)!r}; it must be {remedy}")


def _one_of(config: object, name: str, choices: Collection[str]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(sorted(choices))}")


@dataclass(frozen=True)
class PlanConfig:
    """What shapes a plan: which frames become keyframes, and which tokens each of them keeps.

    Fields left at None take the model's own value (`ModelProfile`).
    """

    prune: float | None = None  # share of the key/value tokens of all keyframes that is dropped, 0..1
    kv_frames: float | None = None  # or: a budget in frames' worth of tokens, whatever K is
    sampled: float = 0.9  # share of the places for other keyframes' tokens that an even sample takes, 0: the paper
    keyframes: int | None = None  # how many; None: as many as the thresholds ask for
    # More scales, the way back and weights by importance choose other keyframes, but no better ones: measured against
    # rendered truth (benchmarks/RESULTS.md), unlike the refinement.
    scales: tuple[int, ...] = (1,)  # pooling, in tokens of the similarity grid
    both_directions: bool = False  # also compare from the later frame to the earlier one
    importance: Importance = "uniform"
    refinement: Refinement = "split"  # "move" keeps the number of keyframes
    similarity: float | None = None  # lowest mean similarity inside a segment
    window_similarity: float | None = None  # lowest similarity of its worst window
    residual: float | None = None  # propagation residual over which the refinement adds keyframes
    max_segment: int = 400  # frames
    max_keyframes: int | None = None  # when `keyframes` is None; None: what suits the device
    blend: bool = True  # propagate from the two neighbouring keyframes, not only the segment's own
    resample: bool = False  # draw a keyframe of each segment anew at every step; TokenFlow always does
    method: MethodName = "adaflow"
    source_prompt: str = ""  # what is in the video; used by `importance="prompt"` and by the inversion

    def __post_init__(self) -> None:
        if self.prune is not None and self.kv_frames is not None:
            raise ConfigError("prune and kv_frames both say how many tokens are kept; give one of them")
        if self.prune is not None:
            _within(self, "prune", 0.0, 1.0)
        if self.kv_frames is not None:
            _within(self, "kv_frames", 1.0, 10_000.0)
        _within(self, "sampled", 0.0, 1.0)
        if self.keyframes is not None:
            _whole(self, "keyframes", 1, 10_000)
        _typed(self, Iterable, "a list such as [1, 2, 4]", "scales")
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales or any(s not in (1, 2, 4, 8) for s in self.scales):
            raise ConfigError(f"scales is {self.scales!r}; it must hold one or more of 1, 2, 4, 8")
        for name in ("similarity", "window_similarity"):
            if getattr(self, name) is not None:
                _within(self, name, -1.0, 1.0)
        if self.residual is not None:
            _within(self, "residual", 0.0, 10.0)
        _whole(self, "max_segment", 1, 100_000)
        if self.max_keyframes is not None:
            _whole(self, "max_keyframes", 1, 10_000)
        _typed(self, bool, "true or false", "both_directions", "blend", "resample")
        _typed(self, str, "a text", "source_prompt")
        _one_of(self, "importance", IMPORTANCE)
        _one_of(self, "refinement", get_args(Refinement))
        _one_of(self, "method", METHODS)


@dataclass(frozen=True)
class EditConfig:
    """What shapes an edit. Fields left at None take the model's own value (`ModelProfile`)."""

    steps: int | None = None
    inversion_steps: int | None = None  # a multiple of `steps`
    guidance: float | None = None  # classifier-free; 1: none, and a third of the work of a step is saved
    guided: float | None = None  # share of the steps, from the first, with guidance; the last need it least
    negative_prompt: str | None = None  # None: the model's own habit, "" or the source prompt
    injection_attention: float | None = None  # share of the steps with the source's queries and keys
    injection_conv: float | None = None  # share of the steps with the source's features
    rescale: float | None = None  # how far guidance keeps the spread of an unguided prediction, 0..1
    focus: float | None = None  # how far the edit is held to the place where the two prompts differ, 0..1
    structure: float | None = None  # share of the steps with the source's structure there too; None: by the words
    smoothing: float | None = None  # how far flicker is smoothed away along the source's motion, 0..1
    fidelity: float | None = None  # how much of what inversion misses of the source is added back, 0..1
    tolerance: float | None = None  # changes that count as none, as a part of what is usual in the frame
    detail: float = 1.0  # how far the source itself is shown where nothing changes, 0..1
    # What frames take from keyframes: the change that the edit makes to the source's self-attention outputs, or the
    # edited outputs themselves (the paper). The change needs the source's whole pass at every step.
    propagation: Propagation = "change"
    seed: int = 0
    chunk: int | None = None  # frames per UNet call; part of what makes the bits
    low_memory: bool = False  # keyframes' outputs in the host's memory and small chunks, for cards of 8 to 12 GiB

    def __post_init__(self) -> None:
        if self.steps is not None:
            _whole(self, "steps", 1, 1000)
        if self.inversion_steps is not None:
            _whole(self, "inversion_steps", 1, 1000)
            if self.steps is not None and self.inversion_steps % self.steps:
                raise ConfigError(
                    f"inversion_steps is {self.inversion_steps}; it must be a multiple of steps ({self.steps})"
                )
        if self.guidance is not None:
            _within(self, "guidance", 1.0, 30.0)
        for name in (
            "guided", "injection_attention", "injection_conv", "fidelity", "rescale", "focus", "structure", "smoothing",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                _within(self, name, 0.0, 1.0)
        if self.tolerance is not None:
            _within(self, "tolerance", 0.0, 1.0)
        _within(self, "detail", 0.0, 1.0)
        if self.negative_prompt is not None:
            _typed(self, str, "a text", "negative_prompt")
        _one_of(self, "propagation", PROPAGATION)
        _whole(self, "seed", 0, 2**63 - 1)
        if self.chunk is not None:
            _whole(self, "chunk", 1, 4096)

    @property
    def guided_steps(self) -> int:
        """How many steps, from the first, are guided; of settings with every value filled in."""
        assert self.steps and self.guided is not None
        return 0 if self.guidance == 1 else round(self.guided * self.steps)

    @property
    def whole_source(self) -> bool:
        """Whether every step needs the source's whole pass, and not only what is injected."""
        return bool(self.fidelity) or bool(self.tolerance) or self.propagation == "change"


PRESETS: dict[str, tuple[PlanConfig, EditConfig]] = {
    "default": (PlanConfig(), EditConfig()),
    # Fewer steps, most of what shapes the picture being decided in the first of them.
    "fast": (PlanConfig(), EditConfig(steps=8, inversion_steps=8)),
    # The settings of the published program (method.md of arXiv 2502.05433's implementation).
    "paper": (
        PlanConfig(
            kv_frames=20,
            sampled=0.0,
            scales=(1,),
            both_directions=False,
            importance="uniform",
            refinement="none",
            similarity=0.75,
            window_similarity=0.6,
            blend=False,
            resample=True,
        ),
        EditConfig(
            steps=50,
            inversion_steps=100,
            guidance=7.5,
            guided=1.0,
            negative_prompt="",
            injection_attention=0.8,
            injection_conv=0.8,
            rescale=0.0,
            focus=0.0,
            smoothing=0.0,
            fidelity=0.0,
            tolerance=0.0,
            detail=0.0,
            propagation="output",
        ),
    ),
    # TokenFlow (arXiv 2307.10373) at the model's own steps, guidance and injection, to compare with.
    "tokenflow": (
        PlanConfig(method="tokenflow"),
        EditConfig(
            rescale=0.0,
            focus=0.0,
            smoothing=0.0,
            fidelity=0.0,
            tolerance=0.0,
            detail=0.0,
            propagation="output",
        ),
    ),
}


@dataclass(frozen=True)
class ModelProfile:
    """The values that belong to a checkpoint: read from its `adaflow.json`, else Stable Diffusion's."""

    size: int = 512  # pixels of the shorter side that the model was trained for
    steps: int = 25
    inversion_steps: int = 25
    guidance: float = 7.5
    # Guidance matters while the picture takes shape (arXiv 2404.07724); without it a step is a third cheaper.
    guided: float = 0.6
    negative: Literal["empty", "source"] = "empty"  # what the guidance points away from by default
    injection_attention: float = 0.5
    injection_conv: float = 0.8
    rescale: float = 0.0
    focus: float = 0.0
    smoothing: float = 0.0
    fidelity: float = 0.0
    tolerance: float = 0.0
    prune: float = 0.6
    similarity: float = 0.75
    window_similarity: float = 0.6
    cut: float = 0.5  # similarity of consecutive frames under which a new shot begins
    residual: float = 0.5
    feature_block: int = 2  # up block whose output is the feature
    feature_timestep: int = 1
    vocabulary: tuple[str, ...] = field(default=())  # empty: open

    @classmethod
    def load(cls, folder: Path) -> ModelProfile | None:
        """The profile in `folder`, or None if it carries none."""
        path = folder / "adaflow.json"
        if not path.is_file():
            return None
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - names)
        if unknown:
            raise ConfigError(f"{path.name} holds unknown settings: {', '.join(unknown)}")
        data["vocabulary"] = tuple(data.get("vocabulary", ()))
        return cls(**data)


def resolve_plan(config: PlanConfig, profile: ModelProfile, device: str) -> PlanConfig:
    """`config` with every None that the model or the device (its type) decides filled in."""
    prune = profile.prune if config.prune is None and config.kv_frames is None else config.prune
    limit = MAX_KEYFRAMES_CPU if device == "cpu" else MAX_KEYFRAMES
    return replace(
        config,
        prune=prune,
        similarity=profile.similarity if config.similarity is None else config.similarity,
        window_similarity=(profile.window_similarity if config.window_similarity is None else config.window_similarity),
        residual=profile.residual if config.residual is None else config.residual,
        max_keyframes=limit if config.max_keyframes is None else config.max_keyframes,
        resample=config.resample or METHODS[config.method].resamples,
    )


def resolve_edit(config: EditConfig, profile: ModelProfile, source_prompt: str) -> EditConfig:
    """`config` with every None that the model decides filled in; `chunk` stays for the backbone."""
    steps = profile.steps if config.steps is None else config.steps
    inversion_steps = config.inversion_steps
    if inversion_steps is None:
        # The profile's ratio of inversion to edit steps, kept when the user changes the steps.
        inversion_steps = steps * max(1, round(profile.inversion_steps / profile.steps))
    negative = config.negative_prompt
    if negative is None:
        negative = source_prompt if profile.negative == "source" else ""
    return replace(
        config,
        steps=steps,
        inversion_steps=inversion_steps,
        guidance=profile.guidance if config.guidance is None else config.guidance,
        guided=profile.guided if config.guided is None else config.guided,
        negative_prompt=negative,
        injection_attention=(
            profile.injection_attention if config.injection_attention is None else config.injection_attention
        ),
        injection_conv=profile.injection_conv if config.injection_conv is None else config.injection_conv,
        rescale=profile.rescale if config.rescale is None else config.rescale,
        focus=profile.focus if config.focus is None else config.focus,
        smoothing=profile.smoothing if config.smoothing is None else config.smoothing,
        fidelity=profile.fidelity if config.fidelity is None else config.fidelity,
        tolerance=profile.tolerance if config.tolerance is None else config.tolerance,
    )


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a plan and of an edit in a JSON file: a report, or what a report holds as `settings`."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_SETTINGS_BYTES))
    except OSError as problem:
        raise ConfigError(f"the settings {path} cannot be read ({problem.strerror}); check the path") from problem
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"the settings {path} are no JSON; give the report of an edit ({problem})") from problem
    parts = []
    found = data.get("settings", data) if isinstance(data, dict) else None
    if not isinstance(found, dict) or not found.keys() <= {"plan", "edit"} or not found:
        raise ConfigError(f'the settings {path} hold no "plan" and no "edit"; give the report of an edit')
    for name, config in (("plan", PlanConfig), ("edit", EditConfig)):
        part = found.get(name, {})
        unknown = sorted(set(part) - {f.name for f in fields(config)}) if isinstance(part, dict) else [name]
        if unknown:
            raise ConfigError(f"the settings {path} hold what is no setting: {', '.join(unknown)}; take it out")
        parts.append(part)
    return parts[0], parts[1]


def settings_dict(plan: PlanConfig, edit: EditConfig | None = None) -> dict[str, Any]:
    """The configurations as plain JSON data."""
    return {"plan": asdict(plan)} | ({"edit": asdict(edit)} if edit else {})
