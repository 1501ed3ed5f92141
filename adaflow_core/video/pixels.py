"""A decoded frame as upright 8-bit RGB in BT.709: scaling, display matrix, HDR."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

# Without the two flags swscale takes the nearest chroma sample: 40 dB instead of 48 on a photograph.
FILTER = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# FFmpeg's numbers of what a stream declares (ITU-T H.273).
UNSPECIFIED = 2
MATRICES = {
    0: "rgb",
    1: "bt709",
    2: "unspecified",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020nc",
}
PQ, HLG = 16, 18
WHITE = 203.0  # nits of HDR's reference white (ITU-R BT.2408), which becomes SDR's
_KNEE = 0.8  # linear light above which highlights are compressed; 1 is reference white
_TO_BT709 = np.array(  # of linear BT.2020 (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # BT.2020


def upright_rgb(frame: av.VideoFrame, size: tuple[int, int], scaler: VideoReformatter) -> np.ndarray:
    """[h, w, 3] uint8, scaled to `size` (width, height), with the display matrix applied and HDR tone-mapped."""
    transposed, flip_rows, flip_columns = orientation(frame)
    width, height = size[::-1] if transposed else size
    matrix = None
    if frame.colorspace == UNSPECIFIED:  # then players take BT.709 for HD and BT.601 below it
        matrix = Colorspace.ITU709 if min(frame.width, frame.height) >= 720 else Colorspace.ITU601
    kind = "rgb48le" if is_hdr(frame) else "rgb24"
    scaled = scaler.reformat(frame, width, height, kind, src_colorspace=matrix, interpolation=FILTER, threads=0)
    rgb = scaled.to_ndarray()
    if is_hdr(frame):
        rgb = tone_map(rgb, frame.color_trc)
    if transposed:
        rgb = rgb.transpose(1, 0, 2)
    return rgb[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether to transpose the stored picture, then to reverse its rows, then its columns, to show it upright.

    The display matrix (a b, c d) takes the stored point (x, y) to (a x + c y, b x + d y); turns are multiples of 90
    degrees, others are rounded to one.
    """
    side_data: Any = frame.side_data  # its declared type is wrong
    if (matrix := side_data.get(Type.DISPLAYMATRIX)) is None:
        return False, False, False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def is_hdr(frame: av.VideoFrame) -> bool:
    return frame.color_trc in (PQ, HLG)


def tone_map(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """[h, w, 3] uint16 BT.2020 in PQ or HLG -> uint8 BT.709 for a display of gamma 2.4 (BT.1886)."""
    linear = _to_linear(transfer)[rgb]
    if transfer == HLG:  # the display's own gamma, of its luminance, at 1,000 nits (BT.2100)
        linear *= (linear @ _LUMA)[..., None] ** 0.2 * (1000 / WHITE)
    linear = np.maximum(linear @ _TO_BT709.T, 0)
    peak = linear.max(axis=-1, keepdims=True)  # compressing the largest channel keeps the hue
    over = (peak - _KNEE) / (1 - _KNEE)
    compressed = np.where(over > 0, _KNEE + (1 - _KNEE) * -np.expm1(-np.maximum(over, 0)), peak)
    linear *= compressed / np.maximum(peak, 1e-6)
    return (255 * np.minimum(linear, 1) ** (1 / 2.4) + 0.5).astype(np.uint8)


@lru_cache
def _to_linear(transfer: int) -> np.ndarray:
    """[65536] float32: light of each code value. PQ: 1 is reference white; HLG: the scene's light, from 0 to 1."""
    code = np.arange(65536) / 65535
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
    root = code ** (32 / 2523)
    light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
    return (light ** (16384 / 2610) * (10000 / WHITE)).astype(np.float32)
