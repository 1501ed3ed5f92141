"""The settings of an edit: steps, guidance, structure, and what makes its frames agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaflow_core.config.table import ConfigError, check, setting

Propagation = Literal["change", "output"]

DELIVERIES = ("source", "working")  # the sizes at which an edit can be written
CROPS = ("auto", "small", "never")  # whether a region is edited in a crop around it, and how small it may be
GUIDED_FROM = 0.2  # the share of the steps before guidance, where the words that differ do not say otherwise
# The model's own values of these hold where the words that differ do not say otherwise.
BY_WORDS = ("injection_attention", "injection_conv")


@dataclass(frozen=True)
class EditConfig:
    """What shapes an edit. Fields left at None take the model's own value (`ModelProfile`)."""

    # fmt: off
    steps: int | None = setting(None, "denoising steps", low=1, high=250,
        effect="More: finer pictures, and proportionally slower.")
    max_steps: int | None = setting(None, "limit for the model's own number of steps, where --steps gives none; with a "
        "limit, an edit in fewer steps than the model's own has a fidelity of at most 0.5 unless --fidelity gives "
        "another; auto: no limit",
        low=1, high=250)
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
        "0.5 where the prompts differ all over the frame, as in its style, else 1; all of it, whatever is given, at "
        "focus 0 and where no place is found for a colour or the surroundings", low=0, high=1,
        effect="Less: what changes takes colours of its own.")
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
        check(self)
        if self.steps is not None and self.inversion_steps is not None and self.inversion_steps % self.steps:
            raise ConfigError(
                f"inversion_steps is {self.inversion_steps}; it must be a multiple of steps ({self.steps})"
            )

    @property
    def follows_motion(self) -> bool:
        """Whether edited frames are filtered along the source's motion."""
        return bool(self.smoothing) or bool(self.agreements)

    @property
    def whole_source(self) -> bool:
        """Whether every step needs the source's whole pass, and not only what is injected."""
        return bool(self.fidelity) or bool(self.tolerance) or self.propagation == "change"
