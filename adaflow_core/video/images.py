"""A folder of numbered pictures, read as a video: the same three functions as `reader`."""

from __future__ import annotations

import re
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video.reader import Index
from adaflow_core.video.types import VideoInfo

RATE = Fraction(24)  # pictures have none
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def pictures_of(folder: Path) -> list[Path]:
    """The pictures in a folder, with 10 after 9."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise AdaFlowError(f"{folder} is a folder without pictures; name a video file or a folder of PNG or JPEG files")
    return sorted(
        found, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
    )


def probe(folder: Path, index: Index) -> VideoInfo:
    """What is in a folder, by its first picture."""
    first = next(frames_from(folder, index, 0, Monitor()))
    with Image.open(pictures_of(folder)[0], formats=FORMATS) as picture:
        transparent = picture.has_transparency_data
    notes = (f"{folder.name} has transparent pictures; they were laid over white",) if transparent else ()
    seconds = float(index.length / RATE)
    return VideoInfo(folder, first.width, first.height, RATE, index.length, seconds, "pictures", 0, False, notes)


def index_of(folder: Path, monitor: Monitor) -> Index:
    return Index(len(pictures_of(folder)), None, [])


def frames_from(folder: Path, index: Index, begin: int, monitor: Monitor) -> Generator[av.VideoFrame, None, None]:
    """The pictures from number `begin` on, upright, all of the first one's size."""
    paths = pictures_of(folder)
    size = _read(paths[0]).size
    for path in paths[begin:]:
        monitor.check()
        picture = _read(path)
        if picture.size != size:
            raise AdaFlowError(
                f"{path} is {picture.width}x{picture.height} and the first picture {size[0]}x{size[1]}; "
                "give pictures of one size"
            )
        yield av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16-bit grey, which `convert` would clip
                levels = np.clip(np.asarray(picture, np.int64) / 257, 0, 255)
                picture = Image.fromarray(levels.round().astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise AdaFlowError(f"{path} is not a picture that can be read; take it out of the folder or mend it") from error
