"""Settings: frozen dataclasses that check themselves, presets, and what each model carries as its own.

`PlanConfig` and `EditConfig` are the table of settings: a field's type and its `setting(...)` are all that the checks,
the command line with its help, the page's words and ranges, and the command that repeats an edit know of it. A new
setting is one line here, and its use. If models have a value of their own for it, its type allows None, its default is
None, and `ModelProfile` has a field of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from adaflow_core.errors import AdaFlowError

MethodName = Literal["adaflow", "uniform", "joint", "per-frame", "tokenflow"]
Importance = Literal["uniform", "attention", "distinctive", "prompt"]
Propagation = Literal["change", "output"]
Refinement = Literal["none", "move", "split"]

# How many keyframes the thresholds may ask for; the joint pass grows with their square.
MAX_KEYFRAMES, MAX_KEYFRAMES_CPU = 96, 32
AGREE_EVERY = 6  # steps for each time that frames are brought to agree, where it is not said how often
_JSON_BYTES = 64 * 2**20  # of a file that are read; a report of 10,000 frames, or a project with its pictures, has less


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


def setting(default: Any, help: str, **about: Any) -> Any:
    """A field of a configuration, with `help` and `about` for its row of the table (`Setting`)."""
    return field(default=default, metadata={"help": help, **about})


@dataclass(frozen=True)
class Setting:
    """A row of the table of settings: a field's name, type and default, and what `setting` says of it."""

    name: str
    kind: type  # bool, int, float or str, of a value or of each of several
    optional: bool  # may be None: the model, the device or the video decides
    several: bool  # a tuple of values
    default: Any
    help: str  # a phrase
    low: float | None = None  # the range of a number
    high: float | None = None
    choices: tuple[Any, ...] = ()  # those of a Literal are taken from the type
    effect: str = ""  # a sentence on what more of it does

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def takes_auto(self) -> bool:
        """Whether "auto" stands for None on the command line."""
        return self.optional and self.kind in (int, float)

    def checked(self, value: Any) -> Any:
        """`value` as the configuration keeps it, lists as tuples; ConfigError if the setting cannot have it."""
        if value is None and self.optional:
            return None
        if self.several and isinstance(value, Iterable):
            value = tuple(value)
        remedy = self._remedy(value)
        if remedy:
            raise ConfigError(f"{self.name} is {'empty' if value in ((), '') else repr(value)}; {remedy}")
        return value

    def _remedy(self, value: Any) -> str:
        """What `value` must be instead; empty if it is right."""
        if self.several:
            if not isinstance(value, tuple):
                return "it must be a list such as [1, 2, 4]"
            right = value and all(item in self.choices for item in value)
            return "" if right else f"choose one or more of {', '.join(map(str, self.choices))}"
        if self.choices:
            return "" if value in self.choices else f"choose one of {', '.join(sorted(self.choices))}"
        if self.low is not None and self.high is not None:
            # `not (low <= value <= high)` also catches nan.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not (self.low <= value <= self.high):
                return f"it must lie between {self.low:g} and {self.high:g}"
            return "it must be a whole number" if self.kind is int and not isinstance(value, int) else ""
        remedy = "it must be true or false" if self.kind is bool else "it must be a text"
        return "" if isinstance(value, self.kind) else remedy

    def parse(self, text: str) -> Any:
        """The value that the command line's `text` says; `checked` looks at its range."""
        if self.takes_auto and text == "auto":
            return None
        try:
            return tuple(self.kind(part) for part in text.split(",")) if self.several else self.kind(text)
        except ValueError:
            number = "a whole number" if self.kind is int else "a number"
            raise AdaFlowError(f"{self.name} is {text!r}; it must be {number}") from None

    def as_flag(self, value: Any) -> str:
        """The command line's word for a value other than None."""
        if self.kind is bool:
            return self.flag if value else self.flag.replace("--", "--no-", 1)
        return f"{self.flag}={self.as_text(value)}"  # one word: a text may begin with a dash

    def as_text(self, value: Any) -> str:
        """The text that `parse` reads as `value`."""
        return ",".join(map(str, value)) if self.several else str(value)


def settings_of(config: type) -> dict[str, Setting]:
    """The table of settings of a configuration, by name, in the order of its fields."""
    return _settings_of(config)


@cache  # takes what mypy sees to be hashable, and a dataclass is not
def _settings_of(config: type) -> dict[str, Setting]:
    hints, table = get_type_hints(config), {}
    for row in fields(config):
        if not row.metadata:
            raise TypeError(f"{config.__name__}.{row.name} has no setting(...) that says what it is")
        hint, known = hints[row.name], dict(row.metadata)
        optional = NoneType in get_args(hint)
        if optional:
            (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
        several = get_origin(hint) is tuple
        if several:
            hint = get_args(hint)[0]
        elif get_origin(hint) is Literal:
            hint, known["choices"] = str, get_args(hint)
        table[row.name] = Setting(row.name, hint, optional, several, row.default, **known)
    return table


def _check(config: PlanConfig | EditConfig) -> None:
    for name, row in settings_of(type(config)).items():
        object.__setattr__(config, name, row.checked(getattr(config, name)))


def as_flags(config: PlanConfig | EditConfig, usual: Mapping[str, Any]) -> list[str]:
    """The command line's words for the values that differ from the `usual` ones.

    None is left out: it is the default of every setting that may be None.
    """
    given = {name: value for name, value in vars(config).items() if value is not None and value != usual[name]}
    return [settings_of(type(config))[name].as_flag(value) for name, value in given.items()]


DELIVERIES = ("source", "working")  # the sizes at which an edit can be written
CROPS = ("auto", "small", "never")  # whether a region is edited in a crop around it, and how small it may be
GUIDED_FROM = 0.2  # the share of the steps before guidance, where the words that differ do not say otherwise
# The model's own values of these hold where the words that differ do not say otherwise.
BY_WORDS = ("injection_attention", "injection_conv")
BUDGET = ("prune", "kv_frames")  # two ways to say how many tokens are kept


@dataclass(frozen=True)
class PlanConfig:
    """What shapes a plan: which frames become keyframes, and which tokens each of them keeps.

    Fields left at None take the model's own value (`ModelProfile`).
    """

    # fmt: off
    prune: float | None = setting(None, "share of the other keyframes' key and value tokens that a keyframe drops",
        low=0, high=1, effect="More: keyframes see fewer of each other's tokens; faster, less memory.")
    kv_frames: float | None = setting(None, "instead of --prune: keep this many frames' worth of tokens, whatever the "
        "number of keyframes", low=1, high=10_000)
    # 0: the paper.
    sampled: float = setting(0.9, "share of the places for other keyframes' tokens that an even sample takes",
        low=0, high=1)
    keyframes: int | None = setting(None, "how many keyframes; auto: as many as the thresholds ask for",
        low=1, high=10_000, effect="More: fast changes are followed more closely, at more time and memory.")
    keyframes_at: str = setting("", "these frames of the plan as keyframes, counted from 0, such as 3,10,17; empty: "
        "they are chosen")
    # More scales, the way back and weights by importance choose other keyframes, but no better ones: measured against
    # rendered truth (benchmarks/RESULTS.md), unlike the refinement.
    scales: tuple[int, ...] = setting((1,), "pooling of the similarity grid, in tokens", choices=(1, 2, 4, 8),
        effect="More: frames must agree in detail and at large to share a keyframe.")
    both_directions: bool = setting(False, "also compare from the later frame to the earlier one")
    importance: Importance = setting("uniform", "which tokens weigh more")
    refinement: Refinement = setting("split", "put keyframes where the propagation errs least; move keeps their number")
    similarity: float | None = setting(None, "lowest mean similarity inside a segment", low=-1, high=1)
    window_similarity: float | None = setting(None, "lowest similarity of a segment's worst window", low=-1, high=1)
    residual: float | None = setting(None, "propagation residual over which the refinement adds keyframes",
        low=0, high=10)
    max_segment: int = setting(400, "longest segment, in frames", low=1, high=100_000)
    max_keyframes: int | None = setting(None, "most keyframes that the thresholds may ask for; auto: what suits the "
        "device", low=1, high=10_000)
    blend: bool = setting(True, "propagate from the two neighbouring keyframes, not only the segment's own")
    resample: bool = setting(False, "draw a keyframe of each segment anew at every step; TokenFlow always does")
    method: MethodName = setting("adaflow", "which frames are keyframes, and what the others take from them",
        effect="The others are baselines: even keyframes, all frames jointly, each frame alone, TokenFlow.")
    source_prompt: str = setting("", "what is in the video now; the inversion and --importance prompt use it")
    # fmt: on

    def __post_init__(self) -> None:
        if self.prune is not None and self.kv_frames is not None:
            raise ConfigError("prune and kv_frames both say how many tokens are kept; give one of them")
        _check(self)
        if not all(part.strip().isdecimal() for part in self.keyframes_at.split(",") if self.keyframes_at.strip()):
            raise ConfigError(f"keyframes_at is {self.keyframes_at!r}; it must be frames such as 3,10,17")

    @property
    def given_keyframes(self) -> tuple[int, ...]:
        """The frames of `keyframes_at`, ascending."""
        return tuple(sorted({int(part) for part in self.keyframes_at.split(",") if part.strip()}))


@dataclass(frozen=True)
class EditConfig:
    """What shapes an edit. Fields left at None take the model's own value (`ModelProfile`)."""

    # fmt: off
    steps: int | None = setting(None, "denoising steps", low=1, high=1000,
        effect="More: finer pictures, and proportionally slower.")
    inversion_steps: int | None = setting(None, "steps of the inversion, a multiple of --steps", low=1, high=1000)
    guidance: float | None = setting(None, "scale of the classifier-free guidance", low=1, high=30,
        effect="More: closer to the prompt, less natural. At 1 there is none, and an edit is a third faster.")
    # Guidance matters while the picture takes shape; before, it makes edits glaring (arXiv 2404.07724).
    guided_from: float | None = setting(None, "share of the steps, from the first, before guidance begins; auto: 0.1 "
        "where the words that differ name a colour or the surroundings, else 0.2", low=0, high=1,
        effect="More: nearer to the source, and less glaring. From --guided on there is none.")
    guided: float | None = setting(None, "share of the steps, from the first, after which guidance ends",
        low=0, high=1)
    negative_prompt: str | None = setting(None, "what the guidance points away from; by default nothing or the source "
        "prompt, as the model does")
    injection_attention: float | None = setting(None, "share of the steps with the source's queries and keys; auto: "
        "all where the edit is held to its place (focus) and the words that differ name a colour or the surroundings, "
        "else as the model does", low=0, high=1,
        effect="More: holds the source's layout for longer. To change an object's kind, take less.")
    injection_conv: float | None = setting(None, "share of the steps with the source's features; auto: likewise",
        low=0, high=1, effect="More: holds the source's shapes for longer.")
    rescale: float | None = setting(None, "how far guidance keeps the spread of an unguided prediction", low=0, high=1)
    focus: float | None = setting(None, "how far the edit is held to the place where the two prompts differ",
        low=0, high=1, effect="At 0 it may change the whole frame; at 1 the source stays outside that place.")
    structure: float | None = setting(None, "share of the steps with the source's structure in that place; auto: all, "
        "or none where the words name another thing", low=0, high=1,
        effect="Less: things may take another shape.")
    coarse: float | None = setting(None, "how much of the source's coarse light and colours the noise keeps that the "
        "edit starts from, in its place; auto: 0.25 where the words that differ name a colour or the surroundings, "
        "else 1", low=0, high=1, effect="Less: what changes takes colours of its own.")
    # Flicker is less and all scores are as good or better than where every frame is edited (benchmarks/TRIED.md).
    stride: int | None = setting(None, "at most how many frames from one that the model edits to the next; those "
        "between are carried along the source's motion; auto: 8 where the words name a colour or surroundings, else 4",
        low=1, high=32,
        effect="More: faster and calmer. Where the source moves too fast for it, more frames are edited. 1: all are.")
    agreements: int | None = setting(None, "how many times, while they are denoised, edited frames are brought to "
        "agree along the source's motion; auto: as the model does, at most once for six steps, a new thing half "
        "as often, never with --method per-frame", low=0, high=100,
        effect="More: what the words leave open is drawn alike in all frames. Each takes three decodings' time.")
    smoothing: float | None = setting(None, "how far flicker is smoothed away along the source's motion",
        low=0, high=1, effect="More: calmer; fine detail that comes and goes is averaged.")
    fidelity: float | None = setting(None, "how much of what the inversion misses of the source is added back",
        low=0, high=1)
    tolerance: float | None = setting(None, "edit deltas below this part of the frame's typical delta count as zero",
        low=0, high=1)
    detail: float = setting(1.0, "how far the source itself is shown where nothing changes", low=0, high=1)
    outlines: float | None = setting(None, "how far the edit is held to the source's outlines; auto: wholly where the "
        "words that differ name a colour or the surroundings, else not", low=0, high=1,
        effect="More: what is recoloured ends where the thing ends. Less: things may take another shape.")
    # The change needs the source's whole pass at every step; the output is the paper's.
    propagation: Propagation = setting("change", "what frames take from keyframes: the edit's change to the source's "
        "self-attention outputs, or the edited outputs")
    seed: int = setting(0, "same seed, same video", low=0, high=2**63 - 1)
    variation: float = setting(0.0, "how far the seed draws the noise anew that the edit starts from", low=0, high=1,
        effect="At 0 it is the source's own, whatever the seed. More: seeds differ more, and keep less of the source.")
    chunk: int | None = setting(None, "frames per UNet call; part of what makes the bits", low=1, high=4096)
    low_memory: bool = setting(False, "keyframes' outputs in the host's memory and small chunks, for GPUs of 8 to 12 "
        "GiB; a little slower")
    # fmt: on

    def __post_init__(self) -> None:
        _check(self)
        if self.steps is not None and self.inversion_steps is not None and self.inversion_steps % self.steps:
            raise ConfigError(
                f"inversion_steps is {self.inversion_steps}; it must be a multiple of steps ({self.steps})"
            )

    @property
    def guided_steps(self) -> range:
        """The steps that are guided, counted from 0; of settings with the model's values filled in."""
        assert self.steps and self.guided is not None
        if self.guidance == 1:
            return range(0)
        begin = GUIDED_FROM if self.guided_from is None else self.guided_from
        return range(round(begin * self.steps), round(self.guided * self.steps))

    @property
    def follows_motion(self) -> bool:
        """Whether edited frames are filtered along the source's motion."""
        return bool(self.smoothing) or bool(self.agreements)

    @property
    def whole_source(self) -> bool:
        """Whether every step needs the source's whole pass, and not only what is injected."""
        return bool(self.fidelity) or bool(self.tolerance) or self.propagation == "change"


# What the published programs do without.
_PUBLISHED: dict[str, Any] = {
    "guided_from": 0.0, "rescale": 0.0, "focus": 0.0, "coarse": 1.0, "agreements": 0, "smoothing": 0.0, "fidelity": 0.0,
    "tolerance": 0.0, "detail": 0.0, "outlines": 0.0, "propagation": "output", "stride": 1,
}  # fmt: skip

PRESETS: dict[str, tuple[PlanConfig, EditConfig]] = {
    "default": (PlanConfig(), EditConfig()),
    # Fewer steps than Stable Diffusion's 25, most of what shapes the picture being decided in the first of them, and
    # fewer frames. With 10 objects are seen in 73 % and backgrounds in 86 % of frames, with 12 in 83 and 94 %.
    "fast": (PlanConfig(), EditConfig(steps=12, inversion_steps=12, stride=8)),
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
            **_PUBLISHED,
        ),
    ),
    # TokenFlow (arXiv 2307.10373) at the model's own steps, guidance and injection, to compare with.
    "tokenflow": (
        PlanConfig(method="tokenflow"),
        EditConfig(**_PUBLISHED),
    ),
}


@dataclass(frozen=True)
class ModelProfile:
    """The values that belong to a checkpoint: read from its `adaflow.json`, else Stable Diffusion's."""

    size: int = 512  # pixels of the shorter side that the model was trained for
    steps: int = 25
    inversion_steps: int = 25
    guidance: float = 7.5
    guided: float = 0.6  # the last steps need guidance least, and without it a step is a third cheaper
    negative: Literal["empty", "source"] = "empty"  # what the guidance points away from by default
    injection_attention: float = 0.5
    injection_conv: float = 0.8
    rescale: float = 0.0  # on the plain model it gains nothing
    focus: float = 1.0
    agreements: int = 3
    smoothing: float = 0.95
    fidelity: float = 0.0
    tolerance: float = 0.0
    prune: float = 0.6
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
            kinds = (int, float) if isinstance(usual[name], float) else type(usual[name])
            if not isinstance(value, kinds):
                raise ConfigError(f"{path}: {name} is {value!r}; fetch the file again, or take it away")
        return cls(**data)

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


def resolve_edit(config: EditConfig, profile: ModelProfile, plan: PlanConfig) -> EditConfig:
    """`config` with every None that the model or the plan decides filled in; `chunk` stays for the backbone."""
    own = _own_values(config, profile)
    if config.inversion_steps is None:
        own["inversion_steps"] = profile.inversion_steps_for(config.steps)
    if config.negative_prompt is None:
        own["negative_prompt"] = plan.source_prompt if profile.negative == "source" else ""
    if config.agreements is None:
        own["agreements"] = profile.agreements_for(config.steps, plan)
    return replace(config, **own)


def read_json(path: Path, what: str, remedy: str) -> Any:
    """The content of a JSON file that a user names; what cannot be read is said of `what`, with its `remedy`."""
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_JSON_BYTES))
    except OSError as problem:
        raise ConfigError(f"{what} {path} cannot be read ({problem.strerror}); check the path") from problem
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{path} is no JSON, or is cut short ({problem}); {remedy}") from problem


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a plan and of an edit in a JSON file: a report, or what a report holds as `settings`."""
    data = read_json(path, "the settings", "give the report of an edit")
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
    return parts[0], _as_it_was(parts[1])


def edit_of(settings: Mapping[str, Any]) -> EditConfig:
    """The settings of an edit as a report or a project holds them; TypeError where one is none."""
    return EditConfig(**_as_it_was(settings))


# What older versions, whose reports name all other settings, did where there was no setting yet.
_BEFORE: dict[str, Any] = {"stride": 1, "agreements": 0, "guided_from": 0.0, "coarse": 1.0}


def _as_it_was(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an older version wrote, with what it did."""
    lacking = {f.name for f in fields(EditConfig)} - set(settings)
    return dict(settings) | ({name: _BEFORE[name] for name in lacking} if lacking <= _BEFORE.keys() else {})


def settings_dict(plan: PlanConfig, edit: EditConfig | None = None) -> dict[str, Any]:
    """The configurations as plain JSON data."""
    return {"plan": asdict(plan)} | ({"edit": asdict(edit)} if edit else {})
