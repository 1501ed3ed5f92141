"""A colour chart in any matrix, range, transfer, set of primaries and pixel format, and what it should come out as.

From the formulas of ITU-T H.273, ITU-R BT.1886, BT.2087, BT.2100 and BT.2408, in float64; the matrices between
primaries are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PATCH = 32  # pixels of a side
CODES = np.array([  # [24, 3] R'G'B', 0..1, of which half are strong colours
    *([level / 255] * 3 for level in (0, 10, 40, 96, 128, 180, 235, 255)),
    (0.75, 0, 0), (0, 0.75, 0), (0, 0, 0.75), (0.75, 0.75, 0), (0.75, 0, 0.75), (0, 0.75, 0.75), (1, 0, 0), (0, 0, 1),
    (0.78, 0.16, 0.16), (0.12, 0.24, 0.7), (0.2, 0.5, 0.25), (0.9, 0.7, 0.6), (0.5, 0.33, 0.27), (0.6, 0.6, 0.3),
    (0.35, 0.5, 0.65), (0.95, 0.85, 0.2),
])  # fmt: skip
SIZE = (8 * PATCH, 3 * PATCH)
_LUMA = {  # of red and of blue
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593),
}  # fmt: skip
PQ, HLG = HDR = (16, 18)
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
_TO_BT709 = {  # of linear light
    5: [[1.0440, -0.0440, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0118, 0.9882]],
    6: [[0.9395, 0.0502, 0.0103], [0.0178, 0.9658, 0.0164], [-0.0016, -0.0044, 1.0060]],
    9: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    11: [[1.1575, -0.1550, -0.0025], [-0.0415, 1.0456, -0.0041], [-0.0181, -0.0786, 1.0967]],
    12: [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
}


@dataclass(frozen=True)
class Tags:
    """By the numbers of ITU-T H.273; 2: not declared. A `pixels` of RGB has matrix 0 and full range."""

    pixels: str = "yuv444p"
    matrix: int = 1
    full: bool = False
    transfer: int = 1
    primaries: int = 1


def write_chart(path: Path, tags: Tags, codec: str = "ffv1", frames: int = 2) -> Path:
    """The chart in a file without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = *SIZE, tags.pixels
        context = stream.codec_context
        context.colorspace, context.color_range = tags.matrix, 2 if tags.full else 1
        context.color_trc, context.color_primaries = tags.transfer, tags.primaries
        for pts in range(frames):
            frame = _frame(tags)
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _frame(tags: Tags) -> av.VideoFrame:
    if tags.pixels in ("pal8", "rgb24"):
        picture = np.rint(255 * CODES).astype(np.uint8).reshape(3, 8, 3).repeat(PATCH, 0).repeat(PATCH, 1)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        if tags.pixels == "pal8":
            index = np.arange(24, dtype=np.uint8).reshape(3, 8).repeat(PATCH, 0).repeat(PATCH, 1)
            palette = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
            palette[:24, 1:] = np.rint(255 * CODES)
            frame = av.VideoFrame.from_ndarray((index, palette), format="pal8")
    else:
        frame = av.VideoFrame(*SIZE, tags.pixels)
        for plane, part in zip(frame.planes, _parts(tags, frame), strict=True):
            whole = part.reshape(3, 8).repeat(plane.height // 3, 0).repeat(plane.width // 8, 1)
            lines = np.zeros((plane.height, plane.line_size // whole.itemsize), whole.dtype)
            lines[:, : plane.width] = whole
            plane.update(lines.tobytes())
    frame.colorspace, frame.color_range = tags.matrix, 2 if tags.full else 1
    frame.color_trc, frame.color_primaries = tags.transfer, tags.primaries
    return frame


def _parts(tags: Tags, frame: av.VideoFrame) -> list[np.ndarray]:
    """The code values [24] of each plane."""
    bits = frame.format.components[0].bits
    kind, unit = (np.uint8 if bits == 8 else np.uint16), 2 ** (bits - 8)
    if tags.pixels.startswith("gbr"):
        return [np.rint(CODES[:, channel] * (2**bits - 1)).astype(kind) for channel in (1, 2, 0)]
    red, blue = _luma(tags)
    codes = _codes(tags)
    luma = codes @ (red, 1 - red - blue, blue)
    chroma = [(codes[:, 2] - luma) / (2 * (1 - blue)), (codes[:, 0] - luma) / (2 * (1 - red))]
    scales, offsets = _scales(tags, bits)
    parts = [np.rint(scales[i] * part + offsets[i]) for i, part in enumerate([luma, *chroma])]
    parts = [np.clip(part, 0, 256 * unit - 1).astype(kind) for part in parts]
    return parts[:1] if tags.pixels.startswith("gray") else parts


def _codes(tags: Tags) -> np.ndarray:
    """[24, 3] what the file has; in HDR the colours of the chart with white at reference white, 203 nits."""
    if tags.transfer not in HDR:
        return CODES
    light = np.maximum(CODES**2.4 @ np.linalg.inv(np.transpose(_TO_BT709[tags.primaries])), 0)
    return pq_code(203 * light) if tags.transfer == PQ else hlg_code(203 * light)


def _luma(tags: Tags) -> tuple[float, float]:
    # Pictures that declare none are BT.2020 where they have its primaries or are HDR, and small ones BT.601.
    undeclared = 9 if tags.primaries == 9 or tags.transfer in HDR else 6
    return _LUMA[undeclared if tags.matrix == 2 else tags.matrix]


def _scales(tags: Tags, bits: int) -> tuple[list[int], list[int]]:
    unit, most = 2 ** (bits - 8), 2**bits - 1
    if tags.full:
        return [most, most, most], [0, 128 * unit, 128 * unit]
    return [219 * unit, 224 * unit, 224 * unit], [16 * unit, 128 * unit, 128 * unit]


def expected(tags: Tags) -> np.ndarray:
    """[24, 3] float64 levels of 0..255 of the file's code values, as `Video` should have them.

    Of HDR, by display light: 203 nits are white (ITU-R BT.2408), and nothing is compressed.
    """
    codes = CODES
    if not tags.pixels.startswith(("gbr", "rgb", "pal")):
        frame = av.VideoFrame(16, 16, tags.pixels)
        bits, (red, blue) = frame.format.components[0].bits, _luma(tags)
        scales, offsets = _scales(tags, bits)
        y, *chroma = ((part.astype(float) - o) / s for part, o, s in zip(_parts(tags, frame), offsets, scales))  # noqa: B905
        pb, pr = chroma or (0 * y, 0 * y)
        r, b = y + 2 * (1 - red) * pr, y + 2 * (1 - blue) * pb
        codes = np.clip(np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=1), 0, 1)
    if tags.primaries in (1, 2) and tags.transfer not in (8, *HDR):
        return 255 * codes
    if tags.transfer in HDR:
        light = (pq_nits(codes) if tags.transfer == PQ else hlg_nits(codes)) / 203
    else:
        light = to_light(codes, tags.transfer)
    if tags.primaries in _TO_BT709:
        light = light @ np.transpose(_TO_BT709[tags.primaries])
    return 255 * to_codes(np.clip(light, 0, 1), tags.transfer)


def to_light(codes: np.ndarray, transfer: int) -> np.ndarray:
    """On the display; 1 is white."""
    if transfer == 8:
        return codes
    if transfer == 13:
        return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    return codes ** {4: 2.2, 5: 2.8}.get(transfer, 2.4)


def to_codes(light: np.ndarray, transfer: int) -> np.ndarray:
    if transfer == 13:
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return light ** (1 / {4: 2.2, 5: 2.8}.get(transfer, 2.4))


def pq_nits(codes: np.ndarray) -> np.ndarray:
    root = codes ** (1 / 78.84375)
    return 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def pq_code(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_nits(codes: np.ndarray) -> np.ndarray:
    """On a display of 1,000 nits, of which the gamma is 1.2."""
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - _C) / _A) + _B) / 12)
    return 1000 * scene * (scene @ _LUMA_2020)[:, None] ** 0.2


def hlg_code(nits: np.ndarray) -> np.ndarray:
    luma = np.maximum(nits @ _LUMA_2020 / 1000, 1e-9)[:, None]
    scene = nits / 1000 * luma ** (-0.2 / 1.2)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), _A * np.log(np.maximum(12 * scene - _B, 1e-9)) + _C)


def patches(picture: np.ndarray) -> np.ndarray:
    """[24, 3] the mean levels in the middle of each patch of a picture [H, W, 3]."""
    parts = picture.reshape(3, PATCH, 8, PATCH, 3)[:, PATCH // 4 : -PATCH // 4, :, PATCH // 4 : -PATCH // 4]
    return parts.mean((1, 3)).reshape(24, 3)
