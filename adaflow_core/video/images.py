"""Pictures read as a video: a folder of numbered ones, or an animated WebP.

`index_of`, `probe` and `frames_from` take and give what those of `coded.index` and `reader` do for a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageCms, ImageOps

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.storage.pictures import has_the_name_of_a_picture, pictures_in
from adaflow_core.video.coded.index import Index
from adaflow_core.video.types import LIGHT, VideoInfo

RATE = Fraction(24)  # pictures have none
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_TICK = Fraction(1, 1000)  # seconds in which an animation's durations are given
_ORIENTATION, _BITS = 0x0112, 258  # tags of EXIF and of TIFF
_BRIGHTEST = 16.0  # floating-point pictures whose values go further are not on a scale of 0 to 1


def pictures_of(folder: Path) -> list[Path]:
    """The pictures in a folder, with 10 after 9."""
    found = pictures_in(folder)
    if not found:
        raise AdaFlowError(f"{folder} is a folder without pictures; name a video file or a folder of PNG or JPEG files")
    return sorted(
        found, key=lambda path: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]
    )


def index_of(path: Path, monitor: Monitor) -> Index:
    if path.is_dir():
        return Index(len(pictures_of(path)), None, [], apart=True)
    with _opened(path) as file:
        ends = [0]
        for number in range(getattr(file, "n_frames", 1)):
            monitor.check()
            file.seek(number)
            file.load()
            ends.append(ends[-1] + max(1, int(file.info.get("duration", 0) or _round(1 / RATE))))
    return Index(len(ends) - 1, np.array(ends[:-1]), [], _TICK, 0.0, float((ends[-1] - ends[-2]) * _TICK))


def _round(seconds: Fraction) -> int:
    return round(seconds / _TICK)


def probe(path: Path, index: Index, monitor: Monitor) -> VideoInfo:
    """What is in it, by the headers of all pictures, before any is decoded."""
    rate, seconds = RATE, float(index.length / RATE)
    if index.times is not None:
        seconds = float(int(index.times[-1]) * _TICK) + (index.last_seconds or 0.0)
        mean = index.length / Fraction(seconds).limit_denominator(1000)
        if index.length > 1:  # the last one may stand
            mean = (index.length - 1) / (int(index.times[-1]) * _TICK)
        rate = mean.limit_denominator(1001)
    paths = pictures_of(path) if path.is_dir() else [path]
    sizes: dict[tuple[int, int], Path] = {}
    kinds: set[str] = set()
    for picture in paths:
        monitor.check()
        with _opened(picture, of_folder=path.is_dir()) as file:
            turned = _orientation(file, picture) >= 5
            sizes.setdefault(file.size[::-1] if turned else file.size, picture)
            kinds |= {"alpha"} if file.has_transparency_data else set()
            kinds |= {"float"} if file.mode == "F" else set()
    if len(sizes) > 1:
        (first, _), (other, named) = list(sizes.items())[:2]
        raise AdaFlowError(
            f"{named} is {other[0]}x{other[1]} and the first picture {first[0]}x{first[1]}; give pictures of one size"
        )
    notes = [f"{path.name} has transparent pictures; they were laid over white"] if "alpha" in kinds else []
    if "float" in kinds:
        notes.append(f"{path.name} has floating-point pictures; 0 was taken for black and 1 for white")
    for said in _oddities([picture.name for picture in paths]):
        notes.append(f"{path.name} has {said}; the pictures were taken one after another")
    size = next(iter(sizes))
    kind = "pictures" if path.is_dir() else "webp"
    return VideoInfo(path, *size, rate, index.length, seconds, kind, 0, False, tuple(notes))


def _orientation(file: Image.Image, path: Path) -> int:
    """By EXIF, without decoding; Pillow's reader of PNG decodes all pixels to find what may stand behind them."""
    if file.format == "PNG" and "exif" not in file.info and (late := _exif_of_png(path)):
        file.info["exif"] = late
    return int(Image.Image.getexif(file).get(_ORIENTATION, 1))


def _exif_of_png(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"eXIf":
                return file.read(size)
            file.seek(size + 4, os.SEEK_CUR)  # and the checksum
    return b""


def _oddities(names: list[str]) -> list[str]:
    """What is doubled and what is missing in a row of names that differ in their last number only."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", Path(name).stem) for name in names]
    found = [part for part in parts if part is not None]
    if len(found) != len(names) or len({(part[1], part[3]) for part in found}) > 1:
        return []
    by_number: dict[int, list[str]] = {}
    for part, name in zip(found, names, strict=True):
        by_number.setdefault(int(part[2]), []).append(name)
    several = [f"{len(row)} pictures of number {n} ({', '.join(row)})" for n, row in by_number.items() if len(row) > 1]
    pairs = list(pairwise(by_number))
    usual = min((b - a for a, b in pairs), default=1)  # every second or tenth picture is no gap
    gaps = [(a + usual, b - usual) for a, b in pairs if b - a > usual]
    named = [str(first) if first == last else f"{first} to {last}" for first, last in gaps]
    missing = [f"gaps in its numbers ({_in_short(named, 3)})"] if gaps else []
    return missing + ([_in_short(several, 1)] if several else [])


def _in_short(texts: list[str], most: int) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def frames_from(
    path: Path, index: Index, begin: int, monitor: Monitor, ground: int = LIGHT
) -> Generator[av.VideoFrame, None, None]:
    """The pictures from number `begin` on, upright, all of the first one's size; transparent ones over `ground`."""
    if index.times is None:
        for picture in pictures_of(path)[begin:]:
            monitor.check()
            with _opened(picture, of_folder=True) as file:
                yield av.VideoFrame.from_ndarray(np.asarray(_upright_rgb(file, picture, ground)), format="rgb24")
        return
    ends = [*map(int, index.times[1:]), int(index.times[-1]) + _round(Fraction(index.last_seconds or 0))]
    with _opened(path) as file:
        for number in range(begin, index.length):
            monitor.check()
            file.seek(number)
            frame = av.VideoFrame.from_ndarray(np.asarray(_upright_rgb(file, path, ground)), format="rgb24")
            frame.pts, frame.time_base = int(index.times[number]), _TICK
            frame.duration = ends[number] - frame.pts
            yield frame


def is_picture(path: Path) -> bool:
    """Whether it is one picture, by its name."""
    return has_the_name_of_a_picture(path) and os.path.isfile(path)


def read_picture(path: Path, ground: int = LIGHT) -> np.ndarray:
    """[H, W, 3] uint8, upright, over a `ground` of 0..255 where it is transparent.

    AdaFlowError where the file is not there, or is no picture.
    """
    with _opened(path) as file:
        return np.asarray(_upright_rgb(file, path, ground))


@contextmanager
def _opened(path: Path, of_folder: bool = False) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as file:
            yield file
    except FileNotFoundError as error:
        raise AdaFlowError(f"there is no picture {path}; check its path") from error
    except PermissionError as error:
        raise AdaFlowError(f"{path} may not be read; change its permissions") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        remedy = "save it again as PNG with 8 or 16 bits" + (", or take it out of the folder" if of_folder else "")
        raise AdaFlowError(f"{path} is not a picture that can be read; {remedy}") from error


def _upright_rgb(file: Image.Image, path: Path, ground: int) -> Image.Image:
    picture = ImageOps.exif_transpose(file)
    if picture.mode == "F":
        values = np.asarray(picture)
        if not np.isfinite(values).all() or values.max() > _BRIGHTEST:
            raise AdaFlowError(f"{path} has floating-point values up to {values.max():g}; scale them to 0..1")
        picture = Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))
    elif picture.mode.startswith("I"):  # grey of more than 8 bits, which `convert` would clip
        bits = getattr(file, "tag_v2", {}).get(_BITS, (16,))[0]
        levels = np.asarray(picture, np.int64) * 255 / (4095 if bits == 12 else 65535)
        picture = Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (ground, ground, ground, 255)), picture)
    if picture.mode not in ("L", "CMYK"):
        picture = picture.convert("RGB")
    if profile := file.info.get("icc_profile"):
        with suppress(ImageCms.PyCMSError, OSError):  # of another kind of picture, or damaged
            embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(embedded):
                standard = ImageCms.createProfile("sRGB")
                picture = ImageCms.profileToProfile(picture, embedded, standard, outputMode="RGB") or picture
    return picture.convert("RGB")
