"""A part of the picture that an edit keeps to: painted on a few frames, given for all, or named by words.

Outside it and its feather the delivered frames are the source's, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from adaflow_core.config import CROPS
from adaflow_core.errors import AdaFlowError
from adaflow_core.picture.region import files
from adaflow_core.picture.region.window import Window
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import scratch, taken
from adaflow_core.team.team import ALONE, Team
from adaflow_core.video.client import Decoder
from adaflow_core.video.decode import as_array, picture_of
from adaflow_core.video.images import read_picture
from adaflow_core.video.types import DARK, Video

FEATHER = 8  # pixels
BEFORE_CROPS = "never"  # for regions saved by older versions, which do not say
BRIGHT = 128  # level of 0..255 from which a pixel of a file is inside
ASPECT = 0.04  # by which a mask's aspect ratio may differ: it may be the file's instead of the working size's


@dataclass(frozen=True)
class Region:
    """A region as it is asked for: exactly one of `painted`, `masks` and `words`.

    Pixels are inside where an array is not 0, or where a file (pictures, a video, a folder of pictures) or PIL image is
    bright. Transparent pixels are outside.
    """

    painted: Mapping[int, Any] = field(default_factory=dict)  # frame -> mask [H, W], carried to the other frames
    masks: Any = None  # [T, H, W], a mask for every frame
    words: str = ""  # words of the source prompt that name it
    feather: int = FEATHER  # pixels of the working size over which the edit fades out
    crop: str = "auto"  # of CROPS: whether a window around it is edited instead of whole frames

    def __post_init__(self) -> None:
        masks = files.as_path(self.masks, "the file of masks")
        given = {frame: _held(mask, frame) for frame, mask in files.by_frame(self.painted, "the mask").items()}
        object.__setattr__(self, "painted", given)  # from here on these are paths and arrays
        object.__setattr__(self, "masks", masks if isinstance(masks, Path | None) else as_array(masks, "the masks"))
        if not isinstance(self.words, str):
            raise AdaFlowError(f"words is {self.words!r:.80}; name the region by a text, words of the source prompt")
        if bool(self.painted) + (self.masks is not None) + bool(self.words.strip()) != 1:
            raise AdaFlowError("a region is painted, given for all frames or named by words; give one of these")
        whole = isinstance(self.feather, (int, np.integer)) and not isinstance(self.feather, bool)
        if not whole or not 0 <= self.feather <= 256:
            raise AdaFlowError(f"feather is {self.feather!r:.80}; it must be a whole number from 0 to 256, in pixels")
        object.__setattr__(self, "feather", int(self.feather))
        if self.crop not in CROPS:
            raise AdaFlowError(f"crop is {self.crop!r}; choose {', '.join(CROPS)}")

    def as_json(self, folder: Path | None = None) -> dict[str, Any]:
        """Return the region as plain data with checksums.

        With the `folder` of a project, files are named relative to it, and arrays are stored in the data.
        """
        painted = [{"frame": frame, **_named(mask, folder)} for frame, mask in self.painted.items()]
        masks = None if self.masks is None else _named(self.masks, folder)
        return {"painted": painted, "masks": masks, "words": self.words, "feather": self.feather, "crop": self.crop}

    @property
    def flags(self) -> list[str]:
        """Command line options for the region; for an array they name a file that the user has to save."""
        found = [] if self.masks is None else [f"--mask={files.on_command_line(self.masks, 'masks.mp4')}"]
        for frame, mask in self.painted.items():
            found += [f"--mask={files.on_command_line(mask, f'mask-{frame}.png')}", f"--mask-frame={frame}"]
        found += [f"--region={self.words}"] if self.words else []
        found += [f"--feather={self.feather}"] if self.feather != FEATHER else []
        return found + ([f"--crop={self.crop}"] if self.crop != "auto" else [])

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path) -> Region:
        """Read the region of a report or project in `folder`; AdaFlowError if a part is missing or has changed."""
        with files.reading("the region"):
            painted = {int(row["frame"]): files.found(row, folder, "the mask") for row in data["painted"]}
            masks = None if data["masks"] is None else files.found(data["masks"], folder, "the mask")
            words, feather, crop = data["words"], data["feather"], data.get("crop", BEFORE_CROPS)
        return cls(painted, masks, words, feather, crop)


@dataclass(frozen=True)
class RegionMask:
    """The mask of a region in every frame."""

    weights: np.ndarray  # [T, H, W] uint8, memory-mapped: 0 outside, 255 inside, between them in the feather
    digest: str
    asked: dict[str, Any]  # from `Region.as_json`
    window: Window | None = None  # edited instead of whole frames, if not None
    doubt: str = ""  # a sentence on why it may be the wrong part; "" if there is no doubt

    def at(self, frames: slice | np.ndarray) -> RegionMask:
        """Return the mask of some frames only."""
        which = f"{frames.start} {frames.stop}" if isinstance(frames, slice) else f"{frames.tolist()}"
        digest = blake2b(f"{self.digest} {which}".encode(), digest_size=16).hexdigest()
        window = None if self.window is None else self.window.at(frames)
        return replace(self, weights=taken(self.weights, frames), digest=digest, window=window)

    def within(self, window: Window) -> RegionMask:
        """Return the mask of the window alone, which contains the whole region."""
        return replace(self, weights=window.cut(self.weights), window=None)

    def place(self, factor: int) -> np.ndarray:
        """Return [T, h, w] float32 0..1 on the latents' grid: the largest weight that each latent covers."""
        T, H, W = self.weights.shape
        out = np.empty((T, H // factor, W // factor), np.float32)
        for t, frame in enumerate(self.weights):
            out[t] = frame.reshape(H // factor, factor, W // factor, factor).max(axis=(1, 3)) / np.float32(255)
        return out

    def lay(self, edited: np.ndarray, source: np.ndarray, team: Team = ALONE) -> np.ndarray:
        """Return [T, H, W, 3] uint8: the edit inside, the source's own bytes outside. The `team` shares the frames."""
        out = team.scratch(np.uint8, source.shape)
        for t in range(len(out))[team.own(len(out))]:
            share = self.weights[t][..., None] / np.float32(255)
            mixed = source[t] + share * (edited[t].astype(np.float32) - source[t])
            out[t] = mixed.round().clip(0, 255)
        team.wait()
        return out


def crop_line(mask: RegionMask) -> str:
    """Return a sentence on what part of the picture passes through the model."""
    if mask.window is None:
        return "Whole frames pass through the model."
    return f"A crop of {mask.window.text} passes through the model, {100 * mask.window.share:.0f} % of the picture."


def read_painted(region: Region, video: Video, monitor: Monitor) -> dict[int, NDArray[np.bool_]]:
    """Return frame -> painted mask [H, W] bool, at the working size."""
    found = {}
    for frame, mask in region.painted.items():
        if not 0 <= frame < len(video):
            raise AdaFlowError(f"a mask is for frame {frame}; the video has the frames 0 to {len(video) - 1}")
        if isinstance(mask, Path):
            inside = fitted(read_picture(mask, DARK).mean(axis=-1) >= BRIGHT, video.size, mask.name)
        else:
            inside = fitted(np.asarray(mask), video.size)
        if not inside.any():
            raise AdaFlowError(f"the mask of frame {frame} is empty; paint what the edit may change in white")
        if inside.all():
            raise AdaFlowError(
                f"the mask of frame {frame} covers all of it; edit without a region, or leave a part out"
            )
        found[frame] = inside
    return found


def read_masks(masks: np.ndarray | Path, video: Video, monitor: Monitor) -> NDArray[np.bool_]:
    """Return masks of all frames, [T, H, W] bool, at the working size; of a longer file only the video's frames."""
    T = len(video)
    inside = scratch(np.bool_, video.frames.shape[:3])
    if isinstance(masks, Path):
        for t, frame in enumerate(_frames_of(masks, video, monitor)):
            inside[t] = frame.mean(axis=-1) >= BRIGHT
    elif len(masks) != T:
        raise AdaFlowError(f"there are {len(masks)} masks for {T} frames; give one for each, or paint one frame")
    else:
        for t, mask in enumerate(masks):
            inside[t] = fitted(np.asarray(mask), video.size)
    if not inside.any():
        raise AdaFlowError("the masks are empty in all frames; what the edit may change must be white")
    if inside.all():
        raise AdaFlowError("the masks cover all of the video; edit without a region, or leave a part out")
    return inside


def _frames_of(path: Path, video: Video, monitor: Monitor) -> Iterator[np.ndarray]:
    """Yield a frame [H, W, 3] uint8 of a file of masks for each frame of the video.

    A file with as many frames as the video has is taken frame by frame, a longer one by the numbers of the source's
    frames.
    """
    T, end = len(video), video.number(len(video) - 1) + 1
    with Decoder(path, monitor) as decoder:
        info = decoder.probe()
        if info.frames != T and info.frames < end:
            missing = ", as some of its file cannot be read" if video.numbers else ""
            raise AdaFlowError(
                f"{path.name} has {info.frames} frames and the video {T}{missing}; "
                "give a mask for each, or of one frame"
            )
        check_aspect((info.width, info.height), video.size, path.name)
        numbers = range(T) if info.frames == T else [video.number(t) for t in range(T)]
        first, wanted = numbers[0], set(numbers)
        for number, *_, frame in decoder.frames(video.size, first, numbers[-1] + 1 - first, whole=True, ground=DARK):
            if number in wanted:
                yield frame


def fitted(mask: np.ndarray, size: tuple[int, int], name: str = "a mask") -> NDArray[np.bool_]:
    """Return `mask` [H, W] as bool, resized to the video's size (width, height)."""
    if mask.ndim != 2 or not mask.size:
        raise AdaFlowError(f"a mask has the shape {mask.shape}; give one of height and width")
    check_aspect((mask.shape[1], mask.shape[0]), size, name)
    if mask.shape == size[::-1]:
        return mask > 0
    way = cv2.INTER_AREA if mask.shape[0] > size[1] else cv2.INTER_LINEAR
    return cv2.resize((mask > 0).astype(np.float32), size, interpolation=way) >= 0.5


def feathered(inside: NDArray[np.bool_], feather: int) -> NDArray[np.uint8]:
    """Return [H, W] 0..255: 255 `inside`, and a ramp of `feather` pixels around it."""
    if not inside.any() or not feather:
        return inside.astype(np.uint8) * np.uint8(255)
    distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (255 * (1 - distance / (feather + 1))).clip(0, 255).round().astype(np.uint8)


def check_aspect(size: tuple[int, int], wanted: tuple[int, int], name: str) -> None:
    ratio = size[0] / size[1] * wanted[1] / wanted[0]
    if max(ratio, 1 / ratio) > 1 / (1 - ASPECT) + 1e-6:
        raise AdaFlowError(
            f"{name} is {size[0]}x{size[1]} and the video {wanted[0]}x{wanted[1]}; give one of the same shape"
        )


def _held(mask: Any, frame: int) -> Any:
    """Return a painted mask as a path or as an array [H, W]."""
    name = f"the mask of frame {frame}"
    if isinstance(mask, Image):
        return picture_of(mask, name, DARK).mean(axis=-1) >= BRIGHT
    return mask if isinstance(mask, Path) else as_array(mask, name)


def _named(mask: np.ndarray | Path, folder: Path | None) -> dict[str, Any]:
    return files.named(mask if isinstance(mask, Path) else np.asarray(mask) > 0, folder, "the mask")
