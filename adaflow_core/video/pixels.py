"""A decoded frame as upright 8-bit RGB: scaling, display matrix, and the four colour tags."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from adaflow_core.progress import THREADS
from adaflow_core.video.types import LIGHT

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
# Transfers of standard range stay as they are and are declared in what is written, so that every player shows the edit
# as it shows the source: BT.709, gamma 2.2 and 2.8, BT.601, SMPTE 240M, xvYCC, BT.1361, sRGB, BT.2020.
KEPT = (1, 4, 5, 6, 7, 11, 12, 13, 14, 15)
SRGB = 13
CONVERTED = LINEAR, LOG, LOG_SQRT, PQ, CINEMA, HLG = (8, 9, 10, 16, 17, 18)
_GAMMAS = {4: 2.2, 5: 2.8}  # of the display; else BT.1886's
_GAMMA = 2.4
_MOST = 65535
_THREADS = 4  # that convert; each takes some of the addresses that the process may have
_BAND = 2**16  # pixels that a thread converts at a time, within its processor's cache
WHITE = 203.0  # nits of HDR's reference white (ITU-R BT.2408), which becomes SDR's
_KNEE = 0.8  # linear light above which highlights are compressed; 1 is reference white
BT709, BT2020 = 1, 9
_D65, _C, _E, _DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
PRIMARIES = {  # chromaticities of red, green, blue and white
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),  # BT.470 M
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # BT.601, 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # SMPTE 240M
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),  # film
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), _E),  # SMPTE 428, XYZ
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),  # EBU 3213
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def upright_rgb(
    frame: av.VideoFrame, size: tuple[int, int], scaler: VideoReformatter, ground: int = LIGHT
) -> np.ndarray:
    """[h, w, 3] uint8 with BT.709's primaries, scaled to `size` (width, height), with the display matrix applied.

    `ground`: the level of 0..255 over which transparent frames are laid.
    """
    transposed, flip_rows, flip_columns = orientation(frame)
    width, height = size[::-1] if transposed else size
    primaries, matrix = primaries_of(frame), _undeclared_matrix(frame) if frame.colorspace == UNSPECIFIED else None
    converts = primaries != BT709 or frame.color_trc in CONVERTED
    kind = ("rgba64le" if converts else "rgba") if has_alpha(frame) else "rgb48le" if converts else "rgb24"
    scaled = scaler.reformat(frame, width, height, kind, src_colorspace=matrix, interpolation=FILTER, threads=0)
    rgb = scaled.to_ndarray()
    if has_alpha(frame):
        rgb = _laid_over(ground, rgb)
    if frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG:  # swscale takes it for full range
        rgb = _widen(rgb)
    if converts:
        rgb = to_bt709(rgb, frame.color_trc, primaries, _white(frame))
    if transposed:
        rgb = rgb.transpose(1, 0, 2)
    return rgb[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def has_alpha(frame: av.VideoFrame) -> bool:
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether something shows through the frame."""
    return has_alpha(frame) and bool(frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


def _laid_over(ground: int, rgba: np.ndarray) -> np.ndarray:
    """[h, w, 4] -> [h, w, 3]."""
    most = int(np.iinfo(rgba.dtype).max)
    share = rgba[..., 3:] / np.float32(most)
    return (rgba[..., :3] * share + ground / 255 * most * (1 - share) + 0.5).astype(rgba.dtype)


def _widen(rgb: np.ndarray) -> np.ndarray:
    """Limited range, 16 to 235 of 255, to full range."""
    most = int(np.iinfo(rgb.dtype).max)
    wide = (rgb.astype(np.float32) - 16 / 255 * most) * (255 / 219)
    return (wide.clip(0, most) + 0.5).astype(rgb.dtype)


def _white(frame: av.VideoFrame) -> int:
    """What swscale makes of white in 16 bits: it shifts the codes of YUV, where RGB fills the scale."""
    name, bits = frame.format.name, frame.format.components[0].bits
    if frame.format.is_rgb or name.startswith("gray") or frame.format.has_palette:
        return _MOST
    full = frame.color_range == ColorRange.JPEG or name.startswith("yuvj")
    return (2**bits - 1) << (16 - bits) if full else 255 << 8


def transfer_of(frame: av.VideoFrame) -> int:
    """Of the pixels of `upright_rgb`: the frame's own, or BT.709 where that is none or was converted."""
    return int(frame.color_trc) if frame.color_trc in KEPT else BT709


def primaries_of(frame: av.VideoFrame) -> int:
    """What is declared; where nothing is, BT.2020 for HDR and for its matrix and BT.709 for all else, as players do."""
    if frame.color_primaries in PRIMARIES:
        return int(frame.color_primaries)
    return BT2020 if is_hdr(frame) or MATRICES.get(frame.colorspace) == "bt2020nc" else BT709


def _undeclared_matrix(frame: av.VideoFrame) -> Colorspace:
    """What players take where none is declared: BT.2020's with its primaries and for HDR, else by the stored size.

    The bounds are mpv's (`mp_csp_guess_colorspace`): BT.709 from 1280 pixels of width or above 576 of height.
    """
    if primaries_of(frame) == BT2020 or is_hdr(frame):
        return Colorspace.BT2020
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


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


def to_bt709(rgb: np.ndarray, transfer: int, primaries: int, white: int = _MOST) -> np.ndarray:
    """[h, w, 3] uint16, of which the highest code is `white` -> uint8 with BT.709's primaries, in the same transfer if
    that is `KEPT`.

    What is not comes out for a display of gamma 2.4 (BT.1886), HDR tone-mapped.
    """
    pixels = rgb.reshape(-1, 3)
    out, starts = np.empty(pixels.shape, np.uint8), range(0, len(pixels), _BAND)
    codes, linear = _to_code(transfer), _to_linear(transfer, white)

    def convert(start: int) -> None:
        band = slice(start, start + _BAND)
        light = _light(linear.take(pixels[band].T), transfer, primaries)
        out[band] = codes.take(np.rint(np.sqrt(light) * _MOST).astype(np.uint16)).T

    with ThreadPoolExecutor(min(_THREADS, THREADS, len(starts))) as pool:  # numpy computes without Python's lock
        list(pool.map(convert, starts))
    return out.reshape(rgb.shape)


def _light(linear: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """[3, n] float32 of the file's primaries -> BT.709's, 0 to 1; may overwrite what it is given."""
    if transfer == HLG:  # the display's own gamma, of its luminance, at 1,000 nits (BT.2100)
        linear *= (_luminance(primaries) @ linear) ** np.float32(0.2) * np.float32(1000 / WHITE)
    linear = np.maximum(_to_bt709(primaries) @ linear, 0)
    if transfer in (PQ, HLG):
        peak = linear.max(axis=0)  # compressing the largest channel keeps the hue
        high = np.flatnonzero(peak > _KNEE)
        over = (peak[high] - _KNEE) / (1 - _KNEE)
        linear[:, high] *= (_KNEE - (1 - _KNEE) * np.expm1(-over)) / peak[high]
    return np.minimum(linear, 1)


@lru_cache
def _to_code(transfer: int) -> np.ndarray:
    """[65536] uint8: the code of light by its square root, a scale on which dark codes lie far apart."""
    linear = (np.arange(_MOST + 1) / _MOST) ** 2
    if transfer == SRGB:
        code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    else:
        code = linear ** (1 / _GAMMAS.get(transfer, _GAMMA))
    return (255 * code + 0.5).astype(np.uint8)


@lru_cache
def _to_linear(transfer: int, white: int) -> np.ndarray:
    """[65536] float32: light of each code value; 1 is white. PQ may be more; HLG is the scene's light."""
    code = np.minimum(np.arange(_MOST + 1) / white, 1)
    if transfer == PQ:
        root = code ** (32 / 2523)
        power = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
        light = power ** (16384 / 2610) * (10000 / WHITE)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    elif transfer == SRGB:
        light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    elif transfer == LINEAR:
        light = code
    elif transfer in (LOG, LOG_SQRT):
        light = np.where(code > 0, 10 ** ((2 if transfer == LOG else 2.5) * (code - 1)), 0)
    elif transfer == CINEMA:
        light = code**2.6 * (52.37 / 48)
    else:
        light = code ** _GAMMAS.get(transfer, _GAMMA)
    return light.astype(np.float32)


@lru_cache
def _luminance(primaries: int) -> np.ndarray:
    """[3] float32."""
    return _to_xyz(primaries)[1].astype(np.float32)


@lru_cache
def _to_bt709(primaries: int) -> np.ndarray:
    """[3, 3] float32, of linear light; whites other than D65 are adapted (Bradford)."""
    return (np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries)).astype(np.float32)


def _to_xyz(primaries: int) -> np.ndarray:
    """[3, 3], of linear light, adapted to D65."""
    points = np.array([[x, y, 1 - x - y] for x, y in PRIMARIES[primaries]])
    *colours, white = points / [[1], [1], [1], [points[3, 1]]]
    scaled = np.transpose(colours) * np.linalg.solve(np.transpose(colours), white)
    daylight = np.array([_D65[0], _D65[1], 1 - sum(_D65)]) / _D65[1]
    adapted = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ daylight / (_BRADFORD @ white)) @ _BRADFORD)
    return np.asarray(adapted @ scaled)
