"""The settings of a plan: which frames become keyframes, and what each of them keeps of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaflow_core.config.table import ConfigError, check, setting

MethodName = Literal["adaflow", "uniform", "joint", "per-frame", "tokenflow"]
Importance = Literal["uniform", "attention", "distinctive", "prompt"]
Refinement = Literal["none", "move", "split"]

# Where no number is given; the joint pass grows with its square.
MAX_KEYFRAMES, MAX_KEYFRAMES_CPU = 96, 32
BUDGET = ("prune", "kv_frames")  # two ways to say how many tokens are kept


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
    similarity: float | None = setting(None, "lowest mean similarity inside a segment, where keyframes are "
        "counted", low=-1, high=1)
    window_similarity: float | None = setting(None, "lowest similarity of a segment's worst window, "
        "likewise", low=-1, high=1)
    residual: float | None = setting(None, "propagation residual over which the refinement adds keyframes",
        low=0, high=10)
    max_segment: int = setting(400, "longest segment, in frames, where the number of keyframes is not given",
        low=1, high=100_000)
    max_keyframes: int | None = setting(None, "most keyframes that the thresholds may ask for; auto: "
        f"{MAX_KEYFRAMES_CPU} on a processor, else {MAX_KEYFRAMES}", low=1, high=10_000)
    blend: bool = setting(True, "propagate from the two neighbouring keyframes, not only the segment's own")
    resample: bool = setting(False, "draw a keyframe of each segment anew at every step; TokenFlow always does")
    method: MethodName = setting("adaflow", "which frames are keyframes, and what the others take from them",
        effect="The others are baselines: even keyframes, all frames jointly, each frame alone, TokenFlow.")
    source_prompt: str = setting("", "what is in the video now; the inversion and --importance prompt use it")
    # fmt: on

    def __post_init__(self) -> None:
        if self.prune is not None and self.kv_frames is not None:
            raise ConfigError("prune and kv_frames both say how many tokens are kept; give one of them")
        check(self)
        if self.keyframes_at.strip() and METHODS[self.method].spacing == "every frame":
            raise ConfigError(f"with the method {self.method} every frame is a keyframe; leave out keyframes_at")
        if not all(part.strip().isdecimal() for part in self.keyframes_at.split(",") if self.keyframes_at.strip()):
            raise ConfigError(f"keyframes_at is {self.keyframes_at!r}; it must be frames such as 3,10,17")

    @property
    def given_keyframes(self) -> tuple[int, ...]:
        """The frames of `keyframes_at`, ascending."""
        return tuple(sorted({int(part) for part in self.keyframes_at.split(",") if part.strip()}))
