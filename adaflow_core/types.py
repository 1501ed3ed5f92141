"""The data passed between the stages: frozen dataclasses with array shapes.

Letters used throughout: T frames, K keyframes, S edit steps, (h, w) a token grid with n = h*w tokens,
c feature width, M kept tokens per keyframe. Tokens of a frame are flattened row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adaflow_core.video.types import Video

if TYPE_CHECKING:
    from torch import Tensor  # not imported at run time: the decoding process does not need it

    from adaflow_core.config import PlanConfig
    from adaflow_core.progress import Monitor


class Grid(NamedTuple):
    """Height and width of a token grid."""

    h: int
    w: int

    @property
    def n(self) -> int:
        return self.h * self.w

    def __str__(self) -> str:
        return f"{self.h}x{self.w}"


# --- analysis ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """Diffusion features of every frame, from one pass of the UNet (DIFT, arXiv 2306.03881)."""

    tokens: np.ndarray  # [T, n, c] float16, unit rows, on `grid`
    grid: Grid
    importance: dict[str, np.ndarray]  # kind -> [T, n] float32, mean 1 over a frame, on `grid`
    agreement: float  # share of best matches that stay the same when features are reduced to c dimensions

    def part(self, start: int, end: int) -> Features:
        """Return the features of frames `start` to `end` - 1."""
        importance = {kind: weights[start:end] for kind, weights in self.importance.items()}
        return Features(self.tokens[start:end], self.grid, importance, self.agreement)


@dataclass(frozen=True)
class Segments:
    """Contiguous stretches of the timeline, each with its keyframe."""

    starts: np.ndarray  # [K] int64, first frame of each segment; starts[0] == 0
    keyframes: np.ndarray  # [K] int64, starts[k] <= keyframes[k] < starts[k + 1]
    cuts: np.ndarray  # [C] int64, frames that begin a new shot; each is also in `starts`
    T: int  # number of frames

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def ends(self) -> np.ndarray:
        """[K] int64, one past the last frame of each segment."""
        return np.append(self.starts[1:], self.T)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def segment_of(self) -> np.ndarray:
        """[T] int64, the segment of every frame."""
        return np.repeat(np.arange(len(self)), self.lengths)


@dataclass(frozen=True)
class Slimming:
    """Which key/value tokens each keyframe keeps, on one grid."""

    grid: Grid
    scores: np.ndarray  # [K, K, n] float16: query keyframe, other keyframe, its token
    kept: np.ndarray  # [K, M] int32 indices into the K*n flattened tokens: own and best by score, then a sample
    num_sampled: int  # how many of them are the sample
    sample_weight: float  # how many tokens each sampled one stands for, itself included

    @property
    def mask(self) -> np.ndarray:
        """[K, K, n] bool: query keyframe, other keyframe, kept or not."""
        return np.stack([self.mask_of(q) for q in range(len(self.kept))])

    def mask_of(self, q: int) -> np.ndarray:
        """Return [K, n] bool: which tokens of each keyframe query keyframe `q` keeps."""
        K, _, n = self.scores.shape
        mask = np.zeros(K * n, dtype=bool)
        mask[self.kept[q]] = True
        return mask.reshape(K, n)


@dataclass(frozen=True)
class Correspondence:
    """Where every frame takes its self-attention outputs from: one or two keyframes, token by token.

    TokenFlow matches tokens later, in each layer by its own features: then `index` is empty ([T, P, 0]), and `weights`
    depend on time alone ([T, P, 1]).
    """

    slots: np.ndarray  # [T, P] int64, which keyframe (0..K-1); P is 1 or 2, a slot may repeat
    weights: dict[Grid, np.ndarray]  # [T, P, n] float16 per grid, summing to 1 over P
    index: dict[Grid, np.ndarray]  # [T, P, n] int16 or int32 per grid, the keyframe's token for each token

    @property
    def by_layer(self) -> bool:
        return not any(index.size for index in self.index.values())


@dataclass(frozen=True)
class EditLayout:
    """Everything the edit needs to know about a choice of keyframes."""

    keyframes: np.ndarray  # [K] int64
    slimming: dict[Grid, Slimming] | None  # None: each keyframe attends within itself only
    correspondence: Correspondence


@dataclass(frozen=True)
class Forecast:
    """What the plan predicts for its edit on this machine."""

    seconds: dict[str, float]  # stage -> seconds, in the order of the stages
    peak_memory_bytes: int
    measurement: str = ""  # key of the measurement it is computed from, which finished edits correct
    pace: float = 1.0  # seconds per UNet row when this was predicted
    of_keyframes: dict[str, float] = field(default_factory=dict)  # `seconds` of an edit of the keyframes alone

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def times(self, factor: float) -> Forecast:
        """Return the forecast with all seconds multiplied by `factor`."""
        seconds, of_keyframes = (
            {stage: factor * value for stage, value in stages.items()} for stages in (self.seconds, self.of_keyframes)
        )
        return replace(self, seconds=seconds, of_keyframes=of_keyframes)


@dataclass(frozen=True, kw_only=True)
class KeyframeChoice:
    """The chosen keyframes, with the curves by which a person can judge them."""

    segments: Segments
    adjacent: np.ndarray  # [T] float32, similarity of each frame to the one before; [0] is 1
    similarity: np.ndarray  # [T] float32, weighted mean similarity of each frame to its keyframe
    window: np.ndarray  # [T] float32, similarity of its worst window to the keyframe
    heat: np.ndarray  # [T, n] float16, best-match similarity of each token to the keyframe
    heat_grid: Grid
    residual: np.ndarray  # [T] float32, propagation error of each frame; 0 at keyframes
    notes: tuple[str, ...] = ()  # sentences for the user, e.g. on a setting that could not be followed


@dataclass(frozen=True, kw_only=True)
class Plan(KeyframeChoice):
    """What a person previews before the long edit; `engine.edit` takes it as it is."""

    video: Video
    model: str
    config: PlanConfig  # with every value filled in
    features: Features
    layout: EditLayout
    forecast: Forecast
    seconds: dict[str, float]  # stage -> seconds that planning took

    @cached_property
    def heat_range(self) -> tuple[float, float]:
        """The first percentile and the maximum of `heat`: one colour scale for all frames."""
        return float(np.percentile(self.heat.astype(np.float32), 1)), float(self.heat.max())

    @property
    def tokens_full(self) -> int:
        """Key/value tokens that a keyframe would attend to without pruning, on the finest grid."""
        return len(self.layout.keyframes) * self.finest.n

    @property
    def tokens_kept(self) -> int:
        """Key/value tokens that a keyframe attends to, on the finest grid."""
        slimming = self.layout.slimming
        return self.finest.n if slimming is None else int(slimming[self.finest].kept.shape[1])

    @property
    def kept_ratio(self) -> float:
        return self.tokens_kept / self.tokens_full

    @property
    def finest(self) -> Grid:
        return max(self.layout.correspondence.index, key=lambda grid: grid.n)

    @property
    def grids(self) -> list[Grid]:
        """Token grids of the UNet's self-attention, finest first."""
        return sorted(self.layout.correspondence.index, key=lambda grid: -grid.n)


@dataclass(frozen=True)
class Place:
    """Where an edit would change a video, and what was concluded from the words of its prompt."""

    mask: np.ndarray | None  # [T, h, w] float32 0..1 on the latents' grid, soft at its edge; None: all over the frame
    structure: float  # share of the steps with the source's structure in it: 1 keeps shapes, 0 frees them
    surroundings: bool  # whether the edit changes the surroundings of a thing that stays
    why: str = ""  # a phrase on why the mask is None

    @property
    def share(self) -> float:
        """Share of the pixels of all frames that the edit would change."""
        return 1.0 if self.mask is None else float(self.mask.mean())


# --- results ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inversion:
    """Noisy latents of the source at the timesteps that the edit visits (DDIM, arXiv 2010.02502)."""

    timesteps: np.ndarray  # [S] int64, descending
    latents: np.ndarray  # [S, T, 4, h, w], memory-mapped
    prompt: str


@dataclass(frozen=True)
class Held:
    """Keyframes with fixed latents: they take part in attention and propagation, but are not changed."""

    frame_ids: np.ndarray  # [H] int64 ascending, of the layout's keyframes
    latents: np.ndarray  # [S, H, c, h, w] float32, at the timesteps of the edit
    prompt_embeds: Tensor  # [H, L, d], of the prompt under which each was edited


@dataclass(frozen=True)
class EditResult:
    """An edited video with what is needed to repeat it."""

    frames: np.ndarray  # [T, H, W, 3] uint8
    fps: Fraction
    report: dict[str, Any]
    source: Path | None = None
    start: int = 0
    warnings: tuple[str, ...] = field(default=())
    times: tuple[float, ...] | None = None  # as in `Video`
    transfer: int = 1  # as in `Video`
    state: Path | None = None  # file to resume from if the edit is asked for again; deleted when it is written
    bounds: np.ndarray | None = None  # [T, H, W] uint8, 0 where a region keeps the source; None: not held to a region
    file_digest: str = ""  # as in `Video`

    @classmethod
    def of(cls, video: Video, frames: np.ndarray, report: dict[str, Any], warnings: tuple[str, ...]) -> EditResult:
        """Return an edit of all frames of `video`, with its rate, times and sound."""
        return cls(
            frames, video.fps, report, video.source, video.start, warnings, video.times, video.transfer,
            file_digest=video.file_digest,
        )  # fmt: skip

    def save(self, path: str | Path, metadata: Mapping[str, str] | None = None, monitor: Monitor | None = None) -> Path:
        """Write H.264 (yuv420p, index in front) with the source's rate and audio, at the working size; return the path.

        Where the source's file is another one by now, there is no sound and a note that says so. For the source's size
        see `picture.full_size.deliver_edit`.
        """
        from adaflow_core.video.write import write_video

        written = write_video(
            Path(path),
            self.frames,
            self.fps,
            audio_from=self.source,
            audio_digest=self.file_digest,
            start=self.start,
            times=self.times,
            transfer=self.transfer,
            metadata=metadata,
            monitor=monitor,
        )
        self.forget_state()
        return written

    def noting(self, notes: Iterable[str]) -> EditResult:
        """Return the edit with `notes` on how it was made, put before its own warnings."""
        warnings = tuple(dict.fromkeys([*notes, *self.warnings]))
        return replace(self, report=self.report | {"warnings": list(warnings)}, warnings=warnings)

    def forget_state(self) -> EditResult:
        """Delete the file to resume from, once the edit is saved or not wanted; returns the edit."""
        if self.state is not None:
            with suppress(OSError):
                self.state.unlink()
        return self


@dataclass(frozen=True)
class Embedding:
    """An encoded prompt, and what was wrong with it."""

    text: str
    prompt_embeds: Tensor  # [1, L, d]
    words: np.ndarray  # [L] bool, positions that hold words of the prompt
    unknown: tuple[str, ...]  # words the tokenizer does not know
    dropped: str  # the part of the prompt that the text encoder cannot take; "" if it takes all
    known: bool  # whether the tokenizer knows any of its words
