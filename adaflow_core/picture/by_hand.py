"""Keyframes edited by hand: pictures from any program, given back in place of what the edit would make of them.

What was changed in them is carried to all frames along the source's motion, and the result is edited in place of the
source. Where the change is known it is kept: keyframes attend to it, and the other frames take from them. The model
draws only where it is not known, such as where something comes into sight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from adaflow_core.config import JobEdit
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.flow import source_flow
from adaflow_core.picture.changes import VISIBLE, Given, carry_changes
from adaflow_core.picture.full_size import why_lost
from adaflow_core.picture.region import files
from adaflow_core.picture.region.carry import Source
from adaflow_core.picture.region.crops import Crop
from adaflow_core.picture.region.mask import Region, check_aspect
from adaflow_core.planning.analysis import source_latents
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import allocated, scratch, taken
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import Inversion, Plan
from adaflow_core.video.client import Decoder
from adaflow_core.video.decode import picture_of
from adaflow_core.video.images import read_picture
from adaflow_core.video.types import Video

_PICTURE = "the keyframe by hand"
SURE = 0.6  # how far a change must be known to be kept in full
_AT_ONCE = 64  # frames of latents in memory


@dataclass(frozen=True)
class ByHand:
    """Pictures edited by hand, each for one frame of the planned video, counted from 0."""

    pictures: Mapping[int, Any] = field(default_factory=dict)  # files, arrays [H, W, 3] uint8 or PIL images

    def __post_init__(self) -> None:
        given = files.by_frame(self.pictures, _PICTURE)
        if not given:
            raise AdaFlowError("no keyframe was given by hand; give one, or edit without")
        for frame, picture in given.items():  # from here on they are paths and arrays
            if not isinstance(picture, Path):
                given[frame] = picture_of(picture, f"{_PICTURE} of frame {frame}")
        object.__setattr__(self, "pictures", given)

    def as_json(self, folder: Path | None = None) -> list[dict[str, Any]]:
        """Return the pictures as plain data with checksums.

        With the `folder` of a project, files are named relative to it, and arrays are stored in the data.
        """
        return [{"frame": frame, **files.named(picture, folder, _PICTURE)} for frame, picture in self.pictures.items()]

    @property
    def flags(self) -> list[str]:
        """Command line options for the pictures; for an array they name a file that the user has to save."""
        named = [(frame, files.on_command_line(each, f"keyframe-{frame}.png")) for frame, each in self.pictures.items()]
        return [f"--keyframe-image={frame}={name}" for frame, name in named]

    @classmethod
    def from_json(cls, data: list[Mapping[str, Any]], folder: Path) -> ByHand:
        """Read the pictures of a report or project in `folder`; AdaFlowError if one is missing or has changed."""
        with files.reading("what is by hand"):
            pictures = {int(row["frame"]): files.found(row, folder, _PICTURE) for row in data}
        return cls(pictures)


@dataclass(frozen=True)
class HandFilm:
    """The source with the changes by hand, carried to all frames."""

    video: Video  # [T, H, W, 3]
    known: np.ndarray  # [T, H, W] uint8: how far the change is known, 255 in full
    latents: np.ndarray  # [T, 4, h, w] float32
    before: np.ndarray  # [T, 4, h, w] float32, latents of the source
    given: np.ndarray  # [N] the frames that were changed by hand
    asked: list[dict[str, Any]]  # from `ByHand.as_json`

    def at(self, frames: slice | np.ndarray) -> HandFilm:
        """Return the film of some frames only."""
        which = f"{frames.start} {frames.stop}" if isinstance(frames, slice) else f"{frames.tolist()}"
        digest = blake2b(f"{self.video.digest} {which}".encode(), digest_size=16).hexdigest()
        video = replace(self.video, frames=taken(self.video.frames, frames), digest=digest, times=None)
        known, latents, before = (taken(values, frames) for values in (self.known, self.latents, self.before))
        order = np.arange(len(self.known))[frames]
        given = np.flatnonzero(np.isin(order, self.given))
        return replace(self, video=video, known=known, latents=latents, before=before, given=given)

    def within(self, crop: Crop, before: np.ndarray, backbone: Backbone, cache: Cache, monitor: Monitor) -> HandFilm:
        """Return the film of a crop; `before` are the latents of the crop's source."""
        name = f"{self.video.digest} {crop.film.digest}"
        digest = blake2b(name.encode(), digest_size=16).hexdigest()
        video = replace(self.video, frames=crop.window.cut(self.video.frames), digest=digest, part_of=None)
        latents = source_latents(backbone, video, cache, monitor)
        return HandFilm(video, crop.window.cut(self.known), latents, before, self.given, self.asked)

    def moved(self, inversion: Inversion, shares: list[float]) -> Inversion:
        """Return the source's inversion moved to this film: the same noise, around the film's clean latents.

        `shares`: how much of the clean latents is in the noisy ones at each step.
        """
        out = scratch(np.float32, inversion.latents.shape)
        for start in range(0, len(self.latents), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            change = self.latents[part] - self.before[part]
            for i, share in enumerate(shares):
                out[i, part] = inversion.latents[i, part] + np.float32(share) * change
        return replace(inversion, latents=out)

    def place(self, edited: np.ndarray | None, factor: int, focus: float) -> np.ndarray:
        """Return where the model edits, [T, h, w] float32 0..1: not where the change by hand is known.

        `edited` is where it would edit otherwise (None: everywhere), and `focus` how strictly it is held to that.
        """
        T, H, W = self.known.shape
        out = np.empty((T, H // factor, W // factor), np.float32)
        for t, known in enumerate(self.known):
            sure = np.minimum(known.astype(np.float32) / 255 / SURE, 1)
            out[t] = 1 - sure.reshape(H // factor, factor, W // factor, factor).mean(axis=(1, 3))
        return out if edited is None else out * (1 - focus * (1 - edited))


def check_by_hand(by_hand: ByHand) -> None:
    """Raise AdaFlowError if `by_hand` is not a `ByHand`."""
    if not isinstance(by_hand, ByHand):
        raise AdaFlowError(
            f"by_hand is {type(by_hand).__name__}; give the keyframes as ByHand, as in ByHand({{12: picture}})"
        )


def check_pictures(by_hand: ByHand) -> None:
    """Raise AdaFlowError for a file that is no picture, before anything long begins."""
    for picture in by_hand.pictures.values():
        if isinstance(picture, Path):
            read_picture(picture)


def read_pictures(by_hand: ByHand, video: Video, monitor: Monitor | None = None) -> dict[int, NDArray[np.uint8]]:
    """Return frame -> picture [H, W, 3] uint8, at the working size.

    Scaling and JPEG's coding errors change pixels at edges by more than what counts as a change, so they would widen
    what is edited. Each picture is therefore compared with the source's frame at its own size and coded as it is, and
    where the two look the same, the source's pixels are taken. A picture of another size than the working size is taken
    as it is if the source's file is gone or has changed; the `monitor` gets a note.
    """
    found, lost = {}, None
    for frame, picture in by_hand.pictures.items():
        if not 0 <= frame < len(video):
            raise AdaFlowError(
                f"a keyframe by hand is for frame {frame}; the video has the frames 0 to {len(video) - 1}"
            )
        name = picture.name if isinstance(picture, Path) else f"the picture of frame {frame}"
        pixels = read_picture(picture) if isinstance(picture, Path) else picture
        size = pixels.shape[1], pixels.shape[0]
        check_aspect(size, video.size, name)
        source = np.asarray(video.frames[frame])
        alike: NDArray[np.uint8] | None = source
        if size != video.size:
            lost = why_lost(video) if lost is None else lost
            alike = None if lost else _frame_at(video, frame, size)
            if lost and monitor is not None:
                monitor.note(f"{lost}, so what scaling does to {name} may count as changed by hand")
        as_scaled = alike
        if alike is not None and isinstance(picture, Path):
            alike = _coded_as(picture, alike)
        found[frame] = small = _scaled(pixels, video.size)
        if alike is not None and alike is not source:
            lossy = alike is not as_scaled
            found[frame] = _without_differences(source, _scaled(alike, video.size), small, lossy=lossy)
    return found


def _without_differences(
    source: NDArray[np.uint8], alike: NDArray[np.uint8], picture: NDArray[np.uint8], *, lossy: bool
) -> NDArray[np.uint8]:
    """Return the source [H, W, 3] uint8 as it was changed from `alike` to `picture`.

    `alike` is the source's frame as scaling and coding made it. What is hardly changed, such as a soft edge, keeps the
    source's own detail, and what was painted over is the picture itself. Of a `lossy` picture, whose errors are not
    quite those of `alike`, what is hardly changed is the source.
    """
    if lossy:
        return np.where(Given(0, alike, picture).changed[..., None], picture, source)
    change = picture.astype(np.float32) - alike
    painted = np.minimum(np.abs(change).max(axis=-1, keepdims=True) / (2 * VISIBLE), 1)
    made = picture + (1 - painted) * (source.astype(np.float32) - alike)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def _frame_at(video: Video, frame: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return a frame of the video's file at `size` (width, height); None if it has no file or the frame is damaged."""
    if video.source is None:
        return None
    with Decoder(video.source) as decoder:
        read = decoder.frames(size, video.number(frame), 1)
        return next((picture for *_, picture in read), None)


def _scaled(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.shape[1::-1] == size:
        return picture
    way = cv2.INTER_AREA if picture.shape[0] > size[1] else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=way).astype(np.uint8)


def _coded_as(path: Path, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the source's frame [H, W, 3] coded as the JPEG file at `path` is; as it is for other files."""
    with Image.open(path) as file:
        if not isinstance(file, JpegImageFile):
            return source
        coded = BytesIO()
        Image.fromarray(source).save(coded, "JPEG", qtables=file.quantization, subsampling=get_sampling(file))
    return np.asarray(Image.open(coded).convert("RGB"))


def changed_region(plan: Plan, pictures: Mapping[int, np.ndarray]) -> Region | None:
    """Return the region that was changed by hand, for an edit of nothing else; None if a whole frame was changed.

    `pictures`: as `read_pictures` returns them. Raises AdaFlowError if nothing was changed.
    """
    source = plan.video.frames
    masks = {t: Given(t, source[t], picture).changed for t, picture in pictures.items()}
    if not any(mask.any() for mask in masks.values()):
        raise AdaFlowError("the keyframes by hand are as they were; change them, or say with a prompt what to edit")
    if any(mask.all() for mask in masks.values()):
        return None
    return Region({t: mask for t, mask in masks.items() if mask.any()})


def film_by_hand(
    backbone: Backbone,
    plan: Plan,
    by_hand: ByHand,
    pictures: Mapping[int, np.ndarray],
    cache: Cache,
    monitor: Monitor,
) -> HandFilm:
    """Carry the changes by hand, `pictures` as `read_pictures` returns them, to all frames; the result is cached."""
    video = plan.video

    def build(folder: Path) -> dict[str, Any]:
        source = Source(video.frames, source_flow(video, cache, monitor))

        def write() -> None:
            with monitor.stage("carry the keyframes by hand", 2 * len(video)) as stage:
                made, sure = carry_changes(source, plan.segments.cuts, pictures, stage)
            for name, values in (("frames", made), ("known", sure)):
                allocated(folder / f"{name}.npy", np.uint8, values.shape)[:] = values

        backbone.team.lead(write)  # each frame follows from its neighbour, so there is little to share out
        return {}

    digests = [(t, files.named(picture, None, _PICTURE)["checksum"]) for t, picture in pictures.items()]
    key = cache_key(video=video.digest, cuts=plan.segments.cuts.tolist(), pictures=digests)
    folder, _, _ = cache.get("by-hand", key, build, monitor.note, together=True)
    frames, known = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("frames", "known"))
    made = replace(video, frames=frames, digest=key, part_of=None)
    latents, before = (source_latents(backbone, film, cache, monitor) for film in (made, video))
    return HandFilm(made, known, latents, before, np.array(sorted(pictures), np.int64), by_hand.as_json())


def held_to_it(config: JobEdit) -> JobEdit:
    """Return settings that hold the edit to its place in full: `HandFilm.place` has applied `focus` already."""
    return replace(config, focus=1.0)
