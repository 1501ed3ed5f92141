"""The film that an edit's frames are decoded and filtered with: the source's pictures, latents and motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.config import FilledEdit
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import in_passes, rows_to_device, to_device, writing
from adaflow_core.motion.pictures import as_pictures
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.video.types import Video


@dataclass(frozen=True)
class EditedFilm:
    """The film of an edit with T frames, all of which pass through the model."""

    backbone: Backbone
    video: Video  # the source
    latents: np.ndarray  # [T, 4, h, w] the source's
    follow: Callable[[], np.ndarray]  # returns the source's motion, as `source_flow` does; called if it is needed
    cuts: np.ndarray  # [C] frames that begin a new shot
    config: FilledEdit
    cache: Cache
    monitor: Monitor
    renewed: np.ndarray | None = None  # [T, h, w] 0..1, where a thing takes another's place

    @property
    def own(self) -> slice:
        """This process's part of the frames."""
        return self.backbone.team.own(len(self.video))

    @property
    def chunk(self) -> int:
        """The most frames that are decoded at a time."""
        return self.backbone.vae_chunk(*self.video.size, self.config.low_memory)

    def in_passes(self, work: Callable[[np.ndarray, int], None]) -> None:
        """Call `work(ids, count)` on this process's part of the frames, as `memory.in_passes` does."""
        own = np.arange(len(self.video))[self.own]
        in_passes(own, self.backbone.pass_size(len(own), self.chunk), work)

    @cached_property
    def flow(self) -> np.ndarray:
        """[T - 1, 2, H / 2, W / 2, 2], as `source_flow` gives it."""
        return self.follow()

    @cached_property
    def rebuilt(self) -> np.ndarray:
        """The source through the autoencoder [T, H, W, 3] uint8, memory-mapped: the same for every prompt."""
        backbone, video, chunk = self.backbone, self.video, self.chunk

        def build(folder: Path) -> dict[str, Any]:
            out = backbone.team.array(folder / "frames.npy", np.uint8, video.frames.shape)
            with self.monitor.stage("decode source", self.own.stop - self.own.start) as stage, writing(out) as put:

                def decode(ids: np.ndarray, count: int) -> None:
                    frames = backbone.decode_there(to_device(self.latents[ids], backbone.device))
                    put(ids[:count], backbone.send(frames[:count]))
                    stage.advance(count)

                self.in_passes(decode)
            return {}

        key = cache_key(video=video.digest, model=backbone.fingerprint, rows=chunk)
        folder, _, _ = self.cache.get("reconstruction", key, build, self.monitor.note, together=True)
        return np.load(folder / "frames.npy", mmap_mode="r")

    def decoded(
        self,
        edited: Tensor,  # [T, 4, h, w]
        advance: Callable[[int], None],  # called with the number of frames that are done
        finished: Callable[[Tensor, np.ndarray], Tensor] | None = None,  # frames [F, H, W, 3] uint8, numbers -> frames
    ) -> np.ndarray:
        """Return the decoded latents [T, H, W, 3] uint8; each process decodes a part and gets all."""
        backbone = self.backbone
        out = backbone.team.scratch(np.uint8, self.video.frames.shape)

        with writing(out) as put:

            def decode(ids: np.ndarray, count: int) -> None:
                frames = backbone.decode_there(edited[to_device(ids, edited.device)])
                frames = frames if finished is None else finished(frames, ids)
                put(ids[:count], backbone.send(frames[:count]))
                advance(count)

            self.in_passes(decode)
        backbone.team.wait()
        return out

    def beside_source(self, decoded: np.ndarray, first: int = 0) -> Callable[[np.ndarray], tuple[Tensor, Tensor]]:
        """Return a function from frame numbers [F] to pairs of pictures [F, 3, H, W] float32 on the device.

        The pair is the frames of `decoded`, which begins at frame `first`, and the source through the autoencoder.
        """

        def pictures(ids: np.ndarray) -> tuple[Tensor, Tensor]:
            both = (
                rows_to_device(*part, self.backbone.device) for part in ((decoded, ids - first), (self.rebuilt, ids))
            )
            edit, source = (as_pictures(frames) for frames in both)
            return edit, source

        return pictures

    @property
    def renewed_at(self) -> Callable[[np.ndarray], Tensor] | None:
        """`renewed` at the size of pictures, as a function: frame numbers [F] -> [F, 1, H, W] float32 0..1."""
        return None if self.renewed is None else self._renewed_at

    def _renewed_at(self, ids: np.ndarray) -> Tensor:
        assert self.renewed is not None
        small = to_device(np.asarray(self.renewed[ids], np.float32), self.backbone.device)[:, None]
        return F.interpolate(small, self.video.frames.shape[1:3], mode="bilinear", align_corners=False)
