"""Films of which the model edits some frames; the others are warped from these along the source's motion."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import BLOCK
from adaflow_core.motion.carrying import FAR_MISFIT, MISFIT, NEAR, carry_between, frames_to_edit, spread
from adaflow_core.motion.flow import flow_between_chosen, source_flow
from adaflow_core.progress import Monitor, beside
from adaflow_core.storage.arrays import put_rows
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.video.types import Video


@dataclass(frozen=True)
class Thinned:
    """A film and the frames of it that the model edits. `backbone` gives the device and the team of processes."""

    video: Video  # T frames
    frame_ids: np.ndarray  # [F] ascending, the frames that are edited
    backbone: Backbone
    cache: Cache
    monitor: Monitor

    @classmethod
    def of(
        cls,
        video: Video,
        cuts: np.ndarray,  # frames that begin a new shot
        needed: np.ndarray,  # [N] frames that are edited in any case
        stride: int,  # the largest distance between two edited frames
        backbone: Backbone,
        cache: Cache,
        monitor: Monitor,
    ) -> Thinned:
        """Choose the frames to edit by the source's motion, so that the others can be carried from them."""
        everything = cls(video, np.arange(len(video)), backbone, cache, monitor)
        device = backbone.device
        if len(spread(len(video), cuts, needed, stride)) == len(video):
            return everything

        flow = source_flow(video, cache, monitor)

        def build(folder: Path) -> dict[str, Any]:
            found = frames_to_edit(video.frames, flow, cuts, needed, stride, device, monitor, backbone.team)
            return {"frames": found.tolist()}

        key = cache_key(
            video=video.digest, cuts=cuts.tolist(), needed=needed.tolist(), stride=stride, device=device.type,
            misfits=(MISFIT, FAR_MISFIT, NEAR),
        )  # fmt: skip
        _, meta, _ = cache.get("chosen", key, build, monitor.note, together=True)
        return cls(video, np.array(meta["frames"], np.int64), backbone, cache, monitor)

    @property
    def whole(self) -> bool:
        """Whether every frame is edited."""
        return len(self.frame_ids) == len(self.video)

    def flow(self) -> np.ndarray:
        """Return the motion between the edited frames, in the form of `source_flow`."""
        flow = source_flow(self.video, self.cache, self.monitor)
        if self.whole:
            return flow
        team, size = self.backbone.team, self.video.frames.shape[1:3]
        out = team.scratch(flow.dtype, (len(self.frame_ids) - 1, *flow.shape[1:]))
        own = team.own(len(out))
        flow_between_chosen(out, flow, self.frame_ids, size, self.backbone.device, self.monitor, own)
        team.wait()
        return out

    def followed(self, needed: bool) -> AbstractContextManager[None]:
        """Return a context in which, if the model runs on a GPU, a CPU thread computes the source's motion meanwhile.

        The context does nothing if the motion is not `needed`, or is known already because frames were chosen by it.
        """
        if self.backbone.device.type == "cpu" or not self.whole or not needed:
            return nullcontext()
        return beside(self.monitor, partial(source_flow, self.video, self.cache.beside))

    def with_carried(self, edited: np.ndarray, renewed: np.ndarray | None = None) -> np.ndarray:
        """Return all frames [T, H, W, 3] uint8: the `edited` ones [F, H, W, 3] uint8 and those carried from them.

        `renewed`: [F, h, w] 0..1, where a new thing replaces one of the source.
        """
        if self.whole:
            return edited
        team, flow = self.backbone.team, source_flow(self.video, self.cache, self.monitor)
        out = team.scratch(np.uint8, self.video.frames.shape)
        mine = np.arange(len(edited))[team.own(len(edited))]
        for some in np.split(mine, range(BLOCK, len(mine), BLOCK)):
            self.monitor.check()
            put_rows(out, self.frame_ids[some], edited[some])
        team.wait()
        own, device = team.own(len(out)), self.backbone.device
        carry_between(out, self.video.frames, flow, self.frame_ids, device, self.monitor, renewed, own)
        team.wait()
        return out
