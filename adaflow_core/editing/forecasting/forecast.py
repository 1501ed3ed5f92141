"""Forecasts the seconds and memory of an edit on this machine, from a few short measurements (`calibrate`).

Measurements are cached for a device, a model and a frame size. Every finished edit corrects them, since other programs
may have slowed down the measuring, or the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from adaflow_core.config import EditConfig, FilledEdit
from adaflow_core.editing.agreement import STRENGTH, agreeing_steps
from adaflow_core.editing.finish.smoothing import reach
from adaflow_core.editing.forecasting.calibration import Calibration, attention_widths, calibrate
from adaflow_core.editing.injection import StepPasses, step_passes
from adaflow_core.editing.place.find import TIMESTEPS
from adaflow_core.editing.place.find import pass_rows as place_rows
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import FEED_FORWARD_ROWS, resident_bytes
from adaflow_core.motion.carrying import block_bytes
from adaflow_core.progress import Monitor
from adaflow_core.report.scores import LOOKED_AT, MOMENTS
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.team.team import Team
from adaflow_core.types import EditLayout, Forecast, Plan
from adaflow_core.video.types import Video

KIND = "calibration"  # of the measurements in the cache
# How far an edit may be off its forecast before that follows it at once, and how long it must take to tell: short ones
# are mostly what is done once.
_DISAGREES, _TELLING_SECONDS = 1.5, 3.0
_TELLING = ("edit", "decode frames")  # stages that no edit finds in the cache
Edit = TypeVar("Edit", bound=EditConfig)
_WRITING = 4e-7  # seconds of a pixel of the source and of the edit beside it, on a few cores


@dataclass(frozen=True)
class Measurement:
    """A calibration with its correction by finished edits."""

    calibration: Calibration
    factor: float = 1.0  # seconds that edits took, divided by those that follow from the calibration
    edits: int = 0  # the number of edits that corrected it

    @property
    def pace(self) -> float:
        """Seconds of a row in the UNet."""
        return self.factor * self.calibration.unet

    @classmethod
    def of(cls, meta: dict[str, Any]) -> Measurement:
        return cls(Calibration(**meta["calibration"]), meta["factor"], meta["edits"])

    def told(self, seconds: float, predicted: float) -> Measurement:
        """The measurement after an edit that took `seconds` where `predicted` were forecast.

        The factor goes half of the way to the edit's, or all of it if the two are far apart.
        """
        if max(seconds, predicted) < _TELLING_SECONDS:
            return self
        ratio = seconds / predicted
        near = 1 / _DISAGREES < ratio < _DISAGREES
        return replace(self, factor=self.factor * (ratio**0.5 if near else ratio), edits=self.edits + 1)


def of_crop(whole: Forecast, share: float) -> Forecast:
    """Roughly what an edit takes in a crop of that `share` of the frame, from the forecast for whole frames.

    A pass's time grows with the area, and that of its self-attention faster; encoding the crop and its features are
    additional: a quarter of 512x512 took 19.3 s where whole frames took 72.6.
    """
    return whole.times(share)


def corrected(predicted: Forecast, cache: Cache) -> Forecast:
    """The forecast, corrected by the edits that finished since it was made."""
    meta = cache.find(KIND, predicted.measurement)
    if meta is None:
        return predicted
    change = Measurement.of(meta).pace / predicted.pace
    return replace(predicted.times(change), pace=change * predicted.pace)


def measure_anew(predicted: Forecast, cache: Cache) -> bool:
    """Makes the next plan measure the machine again, unless an edit has corrected the measurement.

    Returns whether it will.
    """
    meta = cache.find(KIND, predicted.measurement)
    if meta is None or Measurement.of(meta).edits:
        return False
    cache.forget(KIND, predicted.measurement)
    return True


def _named(device: torch.device) -> str:
    """The device with, for a GPU, its model and memory: a cache may be moved to another machine, or be shared."""
    if device.type != "cuda":
        return str(device)
    about = torch.cuda.get_device_properties(device)
    return f"{device} {about.name} {about.total_memory}"


def after_edit(plan: Plan, cache: Cache) -> dict[str, float]:
    """Stage -> roughly the seconds that scoring and writing an edit of the plan take; {} if nothing was measured."""
    meta = cache.find(KIND, plan.forecast.measurement)
    if meta is None:
        return {}
    measured, (width, height) = Measurement.of(meta), plan.video.size
    encode, unet = (measured.factor * seconds for seconds in (measured.calibration.encode, measured.calibration.unet))
    frames, looks = len(plan.video), min(len(plan.segments.keyframes), LOOKED_AT) * len(MOMENTS)
    return {
        "residual": frames * encode,
        "score": 2 * looks * unet,
        "write": frames * width * height * _WRITING,
    }


def of_draft(config: Edit) -> Edit:
    """The settings of a draft: those of the edit without agreement and smoothing, which need all frames."""
    return replace(config, agreements=0, smoothing=0.0)


@dataclass(frozen=True)
class Passing:
    """How many frames the model edits, and how many are carried."""

    edited: int
    carried: int = 0

    @classmethod
    def of(cls, edited: int, T: int) -> Passing:
        """`edited` of T frames, if all others are carried."""
        return cls(edited, T - edited)


class Forecaster:
    """Makes forecasts for one model, from measurements that the cache keeps."""

    def __init__(self, backbone: Backbone, cache: Cache) -> None:
        self.backbone, self.cache = backbone, cache

    def predict(
        self,
        video: Video,
        layout: EditLayout,
        passing: Passing,
        config: FilledEdit,
        monitor: Monitor,
        layout_seconds: float = 0.0,  # that laying out anew takes, where each step does
    ) -> Forecast:
        """The forecast of an edit of the video whose inversion is not in the cache."""
        backbone = self.backbone

        def measure(_: Path) -> dict[str, Any]:
            with monitor.stage("measure", 1):
                return asdict(Measurement(calibrate(backbone, *video.size)))

        key = cache_key(
            model=backbone.fingerprint, size=video.size, device=_named(backbone.device), kind=9,
            threads=torch.get_num_threads(), attend=backbone.attend.__name__, gather=backbone.gather.__module__,
            processes=backbone.team.size,
        )  # fmt: skip
        _, meta, _ = self.cache.get(KIND, key, measure)
        on_gpu = backbone.device.type == "cuda"
        of = partial(
            forecast,
            Measurement.of(meta),
            backbone,
            layout,
            base_bytes=torch.cuda.memory_allocated(backbone.device) if on_gpu else resident_bytes(),
            frame_size=video.size,
        )
        alone = of(of_draft(config), passing=Passing(len(layout.keyframes)))
        predicted = of(config, passing=passing, layout_seconds=layout_seconds)
        return replace(predicted, measurement=key, of_keyframes=alone.seconds)

    def learn(self, plan: Plan, config: FilledEdit, seconds: Mapping[str, float], edited: int) -> None:
        """Corrects the measurement by an edit that ran from its first step to its last."""
        passing = Passing.of(edited, len(plan.video))
        predicted = self.predict(plan.video, plan.layout, passing, config, Monitor())
        meta = self.cache.find(KIND, predicted.measurement)
        if meta is None or plan.config.resample:  # what laying out anew takes is not known here
            return
        took = _telling_seconds(self.backbone.team.agree(dict(seconds)))
        told = Measurement.of(meta).told(took, _telling_seconds(predicted.seconds))
        self.cache.renew(KIND, predicted.measurement, asdict(told))


def _telling_seconds(stages: Mapping[str, float]) -> float:
    """Seconds of the stages by which an edit corrects the forecast."""
    return sum(stages.get(stage, 0.0) for stage in _TELLING)


def forecast(
    measurement: Measurement,
    backbone: Backbone,
    layout: EditLayout,
    config: FilledEdit,
    *,
    passing: Passing,
    base_bytes: int,
    frame_size: tuple[int, int],
    layout_seconds: float = 0.0,
) -> Forecast:
    """Seconds per stage and peak memory of an edit whose inversion is not in the cache.

    `base_bytes`: bytes that the process holds before the edit, such as weights and libraries. `layout_seconds`: seconds
    that a new layout takes at each step after the first; 0 if the layout stays.
    """
    frames, carried = passing.edited, passing.carried
    calibration = measurement.calibration
    grids, keyframes = list(layout.correspondence.index), len(layout.keyframes)
    passes = step_passes(config, layout)
    S, rows = config.steps, sum(p.edits for p in passes)
    channels, layers = attention_widths(backbone, grids)
    joint = 0.0
    if layout.slimming is not None:
        # The time of a pass includes attention within a frame; the tokens kept beyond those of a frame are added.
        kept = {grid: part.kept.shape[1] for grid, part in layout.slimming.items()}
        joint = sum(calibration.extended * layers[g] * g.n * max(0, kept[g] - g.n) * channels[g] for g in grids)

    def source_seconds(with_source: Callable[[StepPasses], bool]) -> float:
        """Seconds of the source's branch in all steps: its whole pass, or the part up to the injected convolution."""
        whole, until_conv = calibration.unet, calibration.until_conv
        return sum(whole if with_source(p) else until_conv if p.inject_conv else 0.0 for p in passes)

    per_keyframe = rows * (calibration.unet + joint) + source_seconds(lambda p: p.keyframes_source)
    per_other = rows * calibration.propagated + source_seconds(lambda p: p.whole_source)
    inverted_steps = (S - 1) * (config.inversion_steps // S) + 1
    size = backbone.team.size  # each process has its part of the frames
    inverted, placed = (_filled(backbone, frames, rows) for rows in (backbone.rows(config.chunk), place_rows(backbone)))
    peak = _peak_bytes(calibration, backbone, layout, config, passing, frame_size)
    # Beside a GPU's work the processor follows the motion in a thread of its own.
    followed = frames + carried if backbone.device.type == "cpu" and (carried or config.follows_motion) else 0
    smoothed, agreeing = _filtered(frames, size, config.smoothing), _agreeing_seconds(frames, size, calibration, config)
    counts = (frames - keyframes, frames, keyframes, carried)
    others, frames, keyframes, carried = (-(-count // size) for count in counts)
    shown = bool(config.detail or config.follows_motion)
    seconds = {
        "invert": inverted * inverted_steps * calibration.unet,
        "place": 2 * len(TIMESTEPS) * placed * calibration.unet if config.focus else 0.0,
        "edit": keyframes * per_keyframe + others * per_other + (S - 1) * layout_seconds + agreeing,
        "decode source": frames * calibration.decode if shown else 0.0,
        "decode frames": frames * (calibration.decode + (calibration.restore if config.detail else 0.0)),
        "flow": followed * calibration.follow,
        "smooth": smoothed * calibration.smooth if config.smoothing else 0.0,
        "carry": carried * calibration.carry,
    }
    seconds = {stage: measurement.factor * seconds[stage] for stage in _in_order(seconds, bool(carried), config)}
    return Forecast(seconds, base_bytes + peak, pace=measurement.pace)


def _in_order(stages: Iterable[str], carries: bool, config: EditConfig) -> list[str]:
    """The stages in the order in which they run.

    What agreement needs is made before the edit. If frames are carried, the motion is followed first, since it decides
    which.
    """
    early = ["flow"] if carries else []
    before_edit = [stage for stage in ("decode source", "flow") if config.agreements and stage not in early]
    order = [*early, "invert", "place", *before_edit]
    return [*order, *(stage for stage in stages if stage not in order)]


def _filled(backbone: Backbone, frames: int, rows: int) -> int:
    """Frames of all passes, padding included, of the process that has the most."""
    most = backbone.team.most(frames, backbone.whole(rows))
    size = backbone.pass_size(most, rows)
    return -(-most // size) * size


def _filtered(frames: int, size: int, strength: float) -> float:
    """How many of `frames` the process with the most of them filters, as the mean of both ways through time.

    They are its own part, and, each way, the frames before this that the filter still remembers.
    """
    own = range(frames)[Team(size // 2, size).own(frames)]
    return (len(own) + len(reach(own, frames, strength))) / 2


def _agreeing_seconds(frames: int, size: int, calibration: Calibration, config: FilledEdit) -> float:
    """Seconds that one of `size` processes takes for all the agreements of `frames`."""
    coding = -(-frames // size) * (calibration.decode + 2 * calibration.encode)
    filtering = _filtered(frames, size, STRENGTH) * calibration.smooth
    return len(agreeing_steps(config.agreements, config.steps)) * (coding + filtering)


def _peak_bytes(
    calibration: Calibration,
    backbone: Backbone,
    layout: EditLayout,
    config: FilledEdit,
    passing: Passing,
    frame_size: tuple[int, int],
) -> int:
    """Bytes that the edit's largest pass takes, beside those that the process holds already."""
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

    in_part = backbone.team.most(frames)

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
