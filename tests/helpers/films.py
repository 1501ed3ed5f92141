"""Real video files for the tests, made with PyAV: each frame carries its number, each moment its own tone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48000


def film(count: int, width: int = 192, height: int = 128) -> np.ndarray:
    """[T, H, W, 3] smooth coloured film, with its frame number as a row of eight black or white squares."""
    y, x = np.mgrid[0:height, 0:width] / 64
    frames = np.empty((count, height, width, 3), np.uint8)
    for t in range(count):
        for channel, phase in enumerate((0.0, 1.1, 2.3)):
            frames[t, ..., channel] = 128 + 90 * np.sin(x + phase + t / 9) * np.cos(y - phase)
        for bit in range(8):
            frames[t, :16, 16 * bit : 16 * bit + 16] = 255 * (t >> bit & 1)
    return frames


def number(frame: np.ndarray) -> int:
    """The number drawn into a frame of `film`, at any scale with the squares 1/12 of the width."""
    side = frame.shape[1] // 12
    return sum(int(frame[side // 2, side * bit + side // 2].mean() > 128) << bit for bit in range(8))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def chirp(seconds: float) -> np.ndarray:
    """[N] a tone that rises, so that every moment sounds different."""
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * (200 * t + 150 * t**2))).astype(np.float32)


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """As root, SVT-AV1 gives the thread that calls it real-time priority for good.

    All that a test process starts from then on would have it too: a browser's renderers then take every core.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def make(
    path: Path,
    count: int = 24,
    codec: str = "libx264",
    *,
    pixels: str = "yuv420p",
    rate: Fraction = Fraction(24),
    audio: str | None = None,
    rotation: int = 0,
    times: list[int] | None = None,
    size: tuple[int, int] = (192, 128),
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A real file; `times` are presentation times in 1/1000 s where the rate varies."""
    with _scheduling_kept(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        sound = container.add_stream(audio, rate=RATE, layout="mono") if audio else None
        for t, picture in enumerate(film(count, *size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts = t if times is None else times[t]
            frame.time_base = 1 / rate if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            wave = chirp(count / float(rate))
            for begin in range(0, len(wave), 1024):
                block = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="fltp", layout="mono")
                block.rate, block.pts, block.time_base = RATE, begin, Fraction(1, RATE)
                resampler = av.AudioResampler(format=sound.codec_context.format.name, layout="mono", rate=RATE)
                for part in resampler.resample(block):
                    container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


def sound_of(path: Path) -> tuple[np.ndarray, str]:
    """Samples placed by their times (0 where there are none), and the codec."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        wave = np.zeros(RATE * 20, np.float32)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        for frame in container.decode(stream):
            for part in resampler.resample(frame):
                samples = part.to_ndarray()[0]
                begin = round(float(part.pts * part.time_base) * RATE)
                skipped = max(0, -begin)
                wave[begin + skipped : begin + len(samples)] = samples[skipped:]
        return wave, stream.codec_context.codec.canonical_name


def lag(wave: np.ndarray, reference: np.ndarray) -> int:
    """Samples by which `wave` comes after `reference`."""
    size = 1 << (len(wave) + len(reference)).bit_length()
    product = np.fft.irfft(np.fft.rfft(wave, size) * np.conj(np.fft.rfft(reference, size)))
    shift = int(np.argmax(product))
    return shift - size if shift > size // 2 else shift


def without_frames(path: Path, begin: int, end: int) -> Path:
    """The file with the packets of these frames destroyed."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for packet in packets[begin:end]:
        assert data.count(packet) == 1
        data = data.replace(packet, b"\xff" * len(packet))
    path.write_bytes(data)
    return path
