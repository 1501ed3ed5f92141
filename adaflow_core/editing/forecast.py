"""What an edit will take on this machine: a few short measurements, then arithmetic.

The measurements are of this device, model and frame size, and are cached with them. Every finished edit corrects them:
what else runs on a machine may have slowed down the measuring, or the edit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaflow_core.config import EditConfig
from adaflow_core.editing.agreement import STRENGTH, agreeing_steps
from adaflow_core.editing.attention import (
    EditState,
    KeyframePass,
    PropagationPass,
    editing_attention,
    extended_attention,
)
from adaflow_core.editing.finish.preservation import restore_detail
from adaflow_core.editing.finish.smoothing import BLOCK, reach, smooth_edit
from adaflow_core.editing.injection import StepPasses, injected_conv, step_passes
from adaflow_core.editing.place.find import TIMESTEPS
from adaflow_core.editing.place.find import pass_rows as place_rows
from adaflow_core.model.attention import Halt, forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import FEED_FORWARD_ROWS, cut_feed_forwards, resident_bytes
from adaflow_core.motion.carrying import BLOCKS, block_bytes, carry_between, frames_to_edit
from adaflow_core.motion.flow import flow_between
from adaflow_core.progress import THREADS, Monitor
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.team.team import Team
from adaflow_core.types import EditLayout, Forecast, Grid, Plan
from adaflow_core.video.types import Video

KIND = "calibration"  # of the measurements in the cache
# How far an edit may be off its forecast before that follows it at once, and how long it must take to tell: short ones
# are mostly what is done once.
_DISAGREES, _TELLING_SECONDS = 1.5, 3.0
_TELLING = ("edit", "decode frames")  # stages that no edit finds in the cache


@dataclass(frozen=True)
class Calibration:
    """Seconds and bytes of the pieces that an edit is made of."""

    unet: float  # seconds per row of a pass; an edit has a row for each frame and prompt
    until_conv: float  # per row, the pass up to the injected convolution
    propagated: float  # per row of a pass whose self-attention comes from the keyframes
    decode: float  # per frame
    encode: float  # per frame
    follow: float  # per frame, the source's motion followed
    smooth: float  # per frame, flicker smoothed away along it
    carry: float  # per frame that is not edited: found to be like what is carried, and made of it
    restore: float  # per frame, showing the source where nothing changed
    extended: float  # per query token, kept token and channel of extended attention
    row_bytes: int  # memory of one row more in a pass, without its feed-forward
    gate_bytes: int  # and of one row more in a feed-forward
    decode_bytes: int  # of one frame more in a call of the decoder


@dataclass(frozen=True)
class Measurement:
    """A calibration with what edits have told of it since."""

    calibration: Calibration
    factor: float = 1.0  # what edits take, by what the calibration alone says
    edits: int = 0  # that told

    @property
    def pace(self) -> float:
        """Seconds of a row in the UNet."""
        return self.factor * self.calibration.unet

    @classmethod
    def of(cls, meta: dict[str, Any]) -> Measurement:
        return cls(Calibration(**meta["calibration"]), meta["factor"], meta["edits"])

    def told(self, seconds: float, predicted: float) -> Measurement:
        """The measurement after an edit that took `seconds` where it said `predicted`: half the way to it, or all of it
        where the two disagree."""
        if max(seconds, predicted) < _TELLING_SECONDS:
            return self
        ratio = seconds / predicted
        near = 1 / _DISAGREES < ratio < _DISAGREES
        return replace(self, factor=self.factor * (ratio**0.5 if near else ratio), edits=self.edits + 1)


def of_crop(whole: Forecast, share: float) -> Forecast:
    """About what an edit takes in a crop of that share of the frame, by the forecast of one of whole frames.

    A pass's time grows with the area, and that of its self-attention faster; encoding the crop and its features come on
    top: a quarter of 512x512 took 19.3 s where whole frames took 72.6.
    """
    return replace(whole, seconds={stage: share * value for stage, value in whole.seconds.items()})


def corrected(predicted: Forecast, cache: Cache) -> Forecast:
    """The forecast by what edits have told since it was made."""
    meta = cache.find(KIND, predicted.measurement)
    if meta is None:
        return predicted
    change = Measurement.of(meta).pace / predicted.pace
    seconds = {stage: change * value for stage, value in predicted.seconds.items()}
    return replace(predicted, seconds=seconds, pace=change * predicted.pace)


def measure_anew(predicted: Forecast, cache: Cache) -> bool:
    """Have the next plan measure the machine anew, unless an edit has told that its measurement is right."""
    meta = cache.find(KIND, predicted.measurement)
    if meta is None or Measurement.of(meta).edits:
        return False
    cache.forget(KIND, predicted.measurement)
    return True


@dataclass(frozen=True)
class Passing:
    """How many frames the model edits, and how many are carried."""

    edited: int
    carried: int = 0

    @classmethod
    def of(cls, edited: int, T: int) -> Passing:
        """Where all others of T frames are carried."""
        return cls(edited, T - edited)


class Forecaster:
    """Forecasts for one model, by measurements that the cache keeps."""

    def __init__(self, backbone: Backbone, cache: Cache) -> None:
        self.backbone, self.cache = backbone, cache

    def predict(
        self,
        video: Video,
        layout: EditLayout,
        passing: Passing,
        config: EditConfig,  # with every value filled in
        monitor: Monitor,
        layout_seconds: float = 0.0,  # that laying out anew takes, where each step does
    ) -> Forecast:
        """What an edit of the video will take, with an inversion of its own."""
        backbone = self.backbone

        def measure(_: Path) -> dict[str, Any]:
            with monitor.stage("measure", 1):
                return asdict(Measurement(calibrate(backbone, *video.size)))

        key = cache_key(
            model=backbone.fingerprint, size=video.size, device=str(backbone.device), threads=torch.get_num_threads(),
            attend=backbone.attend.__name__, gather=backbone.gather.__module__, processes=backbone.team.size, kind=9,
        )  # fmt: skip
        _, meta, _ = self.cache.get(KIND, key, measure)
        on_gpu = backbone.device.type == "cuda"
        predicted = forecast(
            Measurement.of(meta),
            backbone,
            layout,
            config,
            passing=passing,
            base_bytes=torch.cuda.memory_allocated(backbone.device) if on_gpu else resident_bytes(),
            frame_size=video.size,
            layout_seconds=layout_seconds,
        )
        return replace(predicted, measurement=key)

    def learn(self, plan: Plan, config: EditConfig, seconds: Mapping[str, float], edited: int) -> None:
        """After an edit from its first step to its last: the next forecast knows how long each stage took."""
        passing = Passing.of(edited, len(plan.video))
        predicted = self.predict(plan.video, plan.layout, passing, config, Monitor())
        meta = self.cache.find(KIND, predicted.measurement)
        if meta is None or plan.config.resample:  # what laying out anew takes is not known here
            return
        took = _telling_seconds(self.backbone.team.agree(dict(seconds)))
        told = Measurement.of(meta).told(took, _telling_seconds(predicted.seconds))
        self.cache.renew(KIND, predicted.measurement, asdict(told))


def _telling_seconds(stages: Mapping[str, float]) -> float:
    """Of the stages by which an edit corrects the forecast."""
    return sum(stages.get(stage, 0.0) for stage in _TELLING)


@torch.inference_mode()
def calibrate(backbone: Backbone, width: int, height: int) -> Calibration:
    """Times each piece on random input: about two seconds for the embedded model on two cores, or for a large one on
    a GPU. There batches are as large as in an edit: small ones are half as fast.
    """
    on_gpu = backbone.device.type == "cuda"
    h, w, depth = height // backbone.factor, width // backbone.factor, backbone.latent_channels
    rows = backbone.chunk if on_gpu else min(4, backbone.chunk)
    latents = torch.randn(rows, depth, h, w, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    frames = backbone.vae_chunk(width, height) if on_gpu else 2
    states = backbone.embed("").states
    grids = backbone.grids(width, height)
    channels, _ = attention_widths(backbone, grids)

    def halted() -> None:
        def halt(*_: Any) -> None:
            raise Halt

        with forward_hook(injected_conv(backbone.unet), halt), suppress(Halt):
            backbone.predict(latents, 500, states)

    state = EditState(attend=backbone.attend, gather=backbone.gather, edits=1, prompts=1)
    with editing_attention(backbone.unet, state):
        unet = _seconds(backbone, lambda: backbone.predict(latents, 500, states)) / rows
        until_conv = _seconds(backbone, halted) / rows
        with state.during(KeyframePass(keep_outputs=True)):
            backbone.predict(latents[:1], 500, states)
        propagation = PropagationPass(
            slots=torch.zeros(rows, 2, dtype=torch.int64, device=backbone.device),
            index={g.n: torch.arange(g.n, device=backbone.device).expand(rows, 2, -1) for g in grids},
            weights={g.n: torch.full((rows, 2, g.n), 0.5, device=backbone.device) for g in grids},
        )
        with state.during(propagation):
            propagated = _seconds(backbone, lambda: backbone.predict(latents, 500, states)) / rows
        state.forget()
        row_bytes, gate_bytes = _pass_bytes(backbone, latents, states, grids, channels)
    small = torch.zeros(frames, depth, h, w)
    decoded = backbone.decode_there(small)
    backbone.finite.check()
    pictures = decoded.cpu().numpy()
    return Calibration(
        unet=unet,
        until_conv=until_conv,
        propagated=propagated,
        decode=_seconds(backbone, lambda: backbone.decode_there(small)) / frames,
        encode=_seconds(backbone, lambda: backbone.encode(pictures)) / frames,
        **_along_the_motion(backbone, decoded[0]),
        restore=_seconds(backbone, lambda: restore_detail(decoded, decoded.flip(1), decoded, 1.0)) / frames,
        extended=_extended(backbone, grids[0], channels[grids[0]], 16 if on_gpu else 4),
        row_bytes=row_bytes,
        gate_bytes=gate_bytes,
        decode_bytes=_peak(backbone, lambda: backbone.decode_there(small)) // frames,
    )


def _along_the_motion(backbone: Backbone, frame: Tensor) -> dict[str, float]:
    """Seconds per frame [H, W, 3] uint8 of following the motion, smoothing along it and carrying along it."""
    picture, still, none = frame.permute(2, 0, 1).float(), frame.cpu().numpy(), np.empty(0, np.int64)
    flow = flow_between(still, still[::-1])[None].repeat(BLOCK - 1, axis=0)

    def smooth() -> None:
        smooth_edit(
            lambda ids: (picture.expand(len(ids), -1, -1, -1),) * 2, flow, 0.9, none, lambda *_: None, Monitor()
        )

    # On a GPU as many frames as it makes at a time: it takes as long for fewer.
    steps, stride = BLOCKS[backbone.device.type != "cpu"], BLOCKS[0] // 2
    film, here = np.stack([still] * (steps + 1)), np.zeros((steps, *flow.shape[1:]), flow.dtype)

    def carry() -> None:
        chosen = frames_to_edit(film, here, none, none, stride, backbone.device, Monitor())
        carry_between(film.copy(), film, here, chosen, backbone.device, Monitor())

    return {
        "follow": _seconds(backbone, lambda: flow_between(still, still[::-1])) / THREADS,
        "smooth": _seconds(backbone, smooth, 2) / BLOCK,
        "carry": _seconds(backbone, carry, 2) / (steps - steps // stride),  # frames between those that are edited
    }


def _extended(backbone: Backbone, grid: Grid, channels: int, K: int) -> float:
    """Seconds per query token, kept token and channel where K keyframes keep half of all tokens, most as a sample."""
    heads = next(module.heads for module in backbone.unet.modules() if hasattr(module, "to_q"))
    query = torch.randn(K, heads, grid.n, channels // heads, device=backbone.device, dtype=backbone.dtype)
    M = K // 2 * grid.n
    kept = (2 * torch.arange(M, device=backbone.device)).expand(K, -1)
    scale, sampled = query.shape[-1] ** -0.5, M - 2 * grid.n
    attend = partial(
        extended_attention, query, query, query, K, kept, backbone.attend, scale, num_sampled=sampled, sample_weight=2
    )
    return _seconds(backbone, attend) / (K * grid.n * M * channels)


def _pass_bytes(
    backbone: Backbone, latents: Tensor, states: Tensor, grids: list[Grid], channels: dict[Grid, int]
) -> tuple[int, int]:
    """Bytes of one row more: in a pass without its feed-forwards, and in a feed-forward."""
    if backbone.device.type != "cuda":
        # GEGLU's two halves of four times the width are the widest tensors of a pass.
        elements = sum(g.n * channels[g] for g in grids) * torch.finfo(backbone.dtype).bits // 8
        return 12 * elements, 12 * elements
    rows = len(latents)
    whole = _peak(backbone, lambda: backbone.predict(latents, 500, states))
    with cut_feed_forwards(backbone.unet) as feed_forwards:
        feed_forwards.cut(rows, limit=max(1, rows // 4))
        cut = _peak(backbone, lambda: backbone.predict(latents, 500, states))
    gate = (whole - cut) / (rows - max(1, rows // 4))
    return int(whole / rows - gate), int(gate)


def _peak(backbone: Backbone, work: Callable[[], object]) -> int:
    """Bytes of the GPU that `work` takes at its peak beside what is there; 0 elsewhere."""
    if backbone.device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(backbone.device)
    torch.cuda.reset_peak_memory_stats(backbone.device)
    work()
    return torch.cuda.max_memory_allocated(backbone.device) - before


def attention_widths(backbone: Backbone, grids: list[Grid]) -> tuple[dict[Grid, int], dict[Grid, int]]:
    """Channels of self-attention by grid, and how many layers work on it."""
    channels: dict[Grid, int] = {}
    layers: dict[Grid, int] = {}
    blocks = backbone.unet.config.block_out_channels
    per_block = backbone.unet.config.layers_per_block
    for level, kind in enumerate(backbone.unet.config.down_block_types):
        if "CrossAttn" in kind:
            grid = grids[level]
            channels[grid], layers[grid] = blocks[level], 2 * per_block + 1
    deepest = grids[-1]
    channels.setdefault(deepest, blocks[-1])
    layers[deepest] = layers.get(deepest, 0) + 1
    return channels, layers


def forecast(
    measurement: Measurement,
    backbone: Backbone,
    layout: EditLayout,
    config: EditConfig,  # with every value filled in
    *,
    passing: Passing,
    base_bytes: int,
    frame_size: tuple[int, int],
    layout_seconds: float = 0.0,
) -> Forecast:
    """Seconds per stage and peak memory of an edit whose inversion is not there yet.

    `base_bytes` is what the process holds before the edit: weights and libraries. `layout_seconds`: what laying out
    anew takes at every step after the first, if it does.
    """
    frames, carried = passing.edited, passing.carried
    assert config.steps and config.inversion_steps and config.smoothing is not None
    calibration = measurement.calibration
    grids, keyframes = list(layout.correspondence.index), len(layout.keyframes)
    passes = step_passes(config, layout)
    S, rows = config.steps, sum(p.edits for p in passes)
    channels, layers = attention_widths(backbone, grids)
    joint = 0.0
    if layout.slimming is not None:
        # The pass itself holds attention within a frame; what slimming keeps beyond that comes on top.
        kept = {grid: part.kept.shape[1] for grid, part in layout.slimming.items()}
        joint = sum(calibration.extended * layers[g] * g.n * max(0, kept[g] - g.n) * channels[g] for g in grids)

    def source_seconds(with_source: Callable[[StepPasses], bool]) -> float:
        """Of the source's part in all steps: its whole pass, or its pass up to the injected convolution."""
        whole, until_conv = calibration.unet, calibration.until_conv
        return sum(whole if with_source(p) else until_conv if p.inject_conv else 0.0 for p in passes)

    per_keyframe = rows * (calibration.unet + joint) + source_seconds(lambda p: p.keyframes_source)
    per_other = rows * calibration.propagated + source_seconds(lambda p: p.whole_source)
    inverted_steps = (S - 1) * (config.inversion_steps // S) + 1
    size = backbone.team.size  # each process has its part of the frames
    inverted, placed = (_filled(backbone, frames, rows) for rows in (backbone.rows(config.chunk), place_rows(backbone)))
    peak = _peak_bytes(calibration, backbone, layout, config, passing, frame_size)
    # On a GPU the processor follows the motion beside all else.
    followed = frames + carried if backbone.device.type == "cpu" and (carried or config.follows_motion) else 0
    smoothed, agreeing = _filtered(frames, size, config.smoothing), _agreeing_seconds(frames, size, calibration, config)
    counts = (frames - keyframes, frames, keyframes, carried)
    others, frames, keyframes, carried = (-(-count // size) for count in counts)
    shown = bool(config.detail or config.follows_motion)
    seconds = {
        "place": 2 * len(TIMESTEPS) * placed * calibration.unet if config.focus else 0.0,
        "invert": inverted * inverted_steps * calibration.unet,
        "decode source": frames * calibration.decode if shown else 0.0,
        "edit": keyframes * per_keyframe + others * per_other + (S - 1) * layout_seconds + agreeing,
        "decode frames": frames * (calibration.decode + (calibration.restore if config.detail else 0.0)),
        "flow": followed * calibration.follow,
        "smooth": smoothed * calibration.smooth if config.smoothing else 0.0,
        "carry": carried * calibration.carry,
    }
    seconds = {stage: measurement.factor * value for stage, value in seconds.items()}
    return Forecast(seconds, base_bytes + peak, pace=measurement.pace)


def _filled(backbone: Backbone, frames: int, rows: int) -> int:
    """Frames of the filled passes of that process which has most."""
    most = Team(0, backbone.team.size).own(frames, backbone.whole(rows))
    size = backbone.pass_size(most.stop, rows)
    return -(-most.stop // size) * size


def _filtered(frames: int, size: int, strength: float) -> int:
    """How many of `frames` the process filters that has most of them: its part, and what the filter remembers of those
    around it, which of a short film is all."""
    return len(reach(range(frames)[Team(size // 2, size).own(frames)], frames, strength))


def _agreeing_seconds(frames: int, size: int, calibration: Calibration, config: EditConfig) -> float:
    """Of one of `size` processes that bring `frames` to agree, as often as they are."""
    assert config.steps and config.agreements is not None
    coding = -(-frames // size) * (calibration.decode + 2 * calibration.encode)
    filtering = _filtered(frames, size, STRENGTH) * calibration.smooth
    return len(agreeing_steps(config.agreements, config.steps)) * (coding + filtering)


def _peak_bytes(
    calibration: Calibration,
    backbone: Backbone,
    layout: EditLayout,
    config: EditConfig,
    passing: Passing,
    frame_size: tuple[int, int],
) -> int:
    """What the edit's largest pass takes beside what the process holds already."""
    grids, keyframes, passes = list(layout.correspondence.index), len(layout.keyframes), step_passes(config, layout)
    channels, layers = attention_widths(backbone, grids)
    chunk = config.chunk or backbone.chunk_for(*frame_size, config.low_memory)
    own = -(-keyframes // backbone.team.size)
    together = own if layout.slimming is not None else min(own, chunk)
    assert config.stride
    size = torch.finfo(backbone.dtype).bits // 8
    outputs = max(p.edits for p in passes) * keyframes * sum(layers[g] * g.n * channels[g] for g in grids) * size
    frames = passing.edited
    if config.low_memory or keyframes == frames:
        outputs = 0

    in_part = Team(0, backbone.team.size).own(frames, 1).stop

    def pass_bytes(batch: int) -> int:
        return batch * calibration.row_bytes + min(batch, FEED_FORWARD_ROWS) * calibration.gate_bytes

    peaks = (
        outputs + pass_bytes(max(p.edits + p.keyframes_source for p in passes) * together),
        outputs + pass_bytes(max(p.edits + p.whole_source for p in passes) * min(chunk, frames)),
        pass_bytes(backbone.pass_size(in_part, backbone.rows(chunk))),
        pass_bytes(2 * backbone.pass_size(in_part, place_rows(backbone))) if config.focus else 0,
        backbone.vae_chunk(*frame_size, config.low_memory) * calibration.decode_bytes,
        block_bytes(backbone.device, frame_size, config.stride) if passing.carried else 0,
    )
    return int(max(peaks))


def _seconds(backbone: Backbone, work: Callable[[], object], repeats: int = 1) -> float:
    """Of a run after one that does not count: the fastest, of two at least on a CPU, which others may use as well.

    The processor's part of what a GPU does is also held up, as by the search for motion.
    """
    repeats = max(repeats, 2) if backbone.device.type == "cpu" else repeats
    work()
    best = float("inf")
    for _ in range(repeats):
        _synchronize(backbone)
        start = time.perf_counter()
        work()
        _synchronize(backbone)
        best = min(best, time.perf_counter() - start)
    return best


def _synchronize(backbone: Backbone) -> None:
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
