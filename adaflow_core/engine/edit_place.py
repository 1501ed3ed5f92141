"""Where an edit takes place, and how much of the source's structure, light and colours it keeps there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from adaflow_core.config import FilledEdit, JobEdit
from adaflow_core.editing.place import Wording, find_place, say_the_same
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.over import OverThePicture
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import Embedding
from adaflow_core.video.types import Video


@dataclass(frozen=True)
class EditPlace:
    """Finds the place of an edit by its two prompts, and decides by it on the settings that were left open.

    Settings and film are given with each call: an edit fills in the first and cuts down the second on its way.
    """

    backbone: Backbone
    cache: Cache
    monitor: Monitor
    source: Embedding
    positive: Embedding
    words: Wording  # of the source's prompt and the edit's
    over: OverThePicture

    @property
    def are_alike(self) -> bool:
        """Whether the two prompts say the same, or differ only in what the text encoder does not take."""
        source, positive = self.source, self.positive
        return say_the_same(source.text, positive.text) or torch.equal(source.prompt_embeds, positive.prompt_embeds)

    def find(
        self,
        config: FilledEdit,
        video: Video,
        latents: np.ndarray,  # [T, 4, h, w] of the video
        keyframes: np.ndarray,  # [K]
    ) -> np.ndarray | None:
        """[T, h, w] float32 0..1, 1 where the edit takes place; None: all over the frames."""
        if not self._can_be_found(config):
            return None
        prompts = self.source, self.positive, self.words
        return find_place(self.backbone, latents, video, keyframes, *prompts, self.cache, self.monitor)

    def decide_by_whole_frames(
        self,
        config: FilledEdit,
        video: Video,
        latents: np.ndarray,  # [T, 4, h, w]
        keyframes: np.ndarray,  # [K]
    ) -> FilledEdit:
        """`config` with its `structure`, and with its `coarse` where a region is edited.

        Both are decided before the edit is cut down to a region's crop: the prompts describe whole frames, and in the
        crop alone a place may seem to be all over the frame.
        """
        if config.structure is None:
            config = replace(config, structure=self._structure(config, video, latents, keyframes))
        if config.coarse is None and self.over.region is not None:
            differ_all_over = not self.words.keeps_shapes and self._all_over(
                config, self._find_in_keyframes(config, video, latents, keyframes)
            )
            config = replace(config, coarse=self.words.coarse(differ_all_over))
        return config

    def decide_by_place(self, config: JobEdit, place: np.ndarray | None) -> JobEdit:
        """`config` with its `coarse`, by the place [T, h, w] that was found."""
        coarse = config.coarse
        if place is None and (self.words.keeps_shapes or not config.focus):
            coarse = 1.0  # all over the frame what stays would lose its own light
        elif coarse is None:
            coarse = self.words.coarse(self._all_over(config, place))
        return replace(config, coarse=coarse)

    def _can_be_found(self, config: FilledEdit) -> bool:
        return bool(config.focus and self.source.text) and not self.are_alike

    def _all_over(self, config: FilledEdit, place: np.ndarray | None) -> bool:
        """Whether the prompts differ all over the frames; never of an edit by hand, which keeps its colours."""
        return place is None and self._can_be_found(config) and self.over.by_hand is None

    def _structure(self, config: FilledEdit, video: Video, latents: np.ndarray, keyframes: np.ndarray) -> float:
        """The share of the steps with the source's structure where the edit takes place."""
        by_hand = self.over.by_hand is not None
        if by_hand and self.are_alike:
            return 1.0  # nothing is asked for but what was changed by hand
        within = self.over.region is not None or by_hand
        if not config.focus or (within and self._find_in_keyframes(config, video, latents, keyframes) is None):
            return 1.0  # as of an edit all over the frame, such as one of its style
        return self.words.structure

    def _find_in_keyframes(
        self, config: FilledEdit, video: Video, latents: np.ndarray, keyframes: np.ndarray
    ) -> np.ndarray | None:
        """[K, h, w] where the edit would take place in the keyframes; None: all over them."""
        digest = cache_key(video=video.digest, keyframes=keyframes.tolist())
        video = replace(video, frames=video.frames[keyframes], digest=digest)
        return self.find(config, video, latents[keyframes], np.arange(len(keyframes)))
