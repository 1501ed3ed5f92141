"""Odd, damaged and lying video files for the tests, made by PyAV, and by FFmpeg where only it can make them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers.films import RATE, chirp, film, make

COUNT = 12  # frames of a whole file
HOURS = 3 * 3600
# 4 frames at 25 a second, then 8 of an eighth as many.
VARYING = [t * 40 if t < 4 else 160 + (t - 4) * 320 for t in range(COUNT)]


def ffmpeg(path: Path, *arguments: str) -> Path:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg here (apt install ffmpeg)")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, str(path)], check=True, timeout=60)
    return path


def _encoder(name: str) -> str:
    if name not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {name}")
    return name


def _patched(path: Path, atom: bytes, offset: int, format_: str, *values: float) -> Path:
    """Overwrites fields that lie `offset` bytes after the end of an atom's or element's name."""
    data = bytearray(path.read_bytes())
    assert atom in data
    struct.pack_into(format_, data, data.index(atom) + len(atom) + offset, *values)
    path.write_bytes(data)
    return path


# --- files that give a result -----------------------------------------------------------------------


def one_frame(folder: Path) -> Path:
    return make(folder / "one.mp4", 1)


def odd_sides_in_yuv444(folder: Path) -> Path:
    return make(folder / "odd.mp4", COUNT, pixels="yuv444p", size=(191, 127))


def sixteen_pixels(folder: Path) -> Path:
    return make(folder / "16.mp4", COUNT, size=(16, 16))


def eight_k(folder: Path) -> Path:
    path = folder / "8k.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        for t in range(2):
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def upright(folder: Path) -> Path:
    return make(folder / "phone.mp4", COUNT, rotation=90)


def varying_mp4(folder: Path) -> Path:
    return make(folder / "vfr.mp4", COUNT, times=VARYING, rate=Fraction(1000))


def varying_mkv(folder: Path) -> Path:
    return make(folder / "vfr.mkv", COUNT, times=VARYING, rate=Fraction(1000))


def hevc_10_bit(folder: Path) -> Path:
    options = {"preset": "ultrafast", "x265-params": "log-level=none"}
    return make(folder / "hevc.mp4", COUNT, _encoder("libx265"), pixels="yuv420p10le", options=options)


def av1(folder: Path) -> Path:
    return make(folder / "av1.mp4", COUNT, _encoder("libsvtav1"), options={"preset": "12", "crf": "20"})


def vp9_webm(folder: Path) -> Path:
    return make(folder / "a.webm", COUNT, _encoder("libvpx-vp9"), options={"deadline": "realtime", "cpu-used": "8"})


def prores_mov(folder: Path) -> Path:
    return make(folder / "a.mov", COUNT, _encoder("prores_ks"), pixels="yuv422p10le")


def gif(folder: Path) -> Path:
    return make(folder / "a.gif", COUNT, "gif", pixels="rgb8", rate=Fraction(20))


def interlaced(folder: Path) -> Path:
    """A bar that moves 8 pixels from field to field."""
    return ffmpeg(
        folder / "fields.mp4", *_fields(folder, range(COUNT), 2), "-vf", _INTERLACED, "-c:v", "libx264", "-flags",
        "+ildct+ilme", "-x264-params", "tff=1", "-crf", "8",
    )  # fmt: skip


def partly_interlaced(folder: Path, first: int = 5) -> Path:
    """The same bar, which moves 16 pixels from frame to frame before the `first` interlaced one."""
    codec, path = ("-c:v", "mpeg2video", "-q:v", "2", "-g", "4"), folder / "mixed.ts"
    parts = [
        ffmpeg(folder / "whole.avi", *_fields(folder, range(first), 1), *codec),
        ffmpeg(
            folder / "halves.avi", *_fields(folder, range(first, COUNT), 2), "-vf", _INTERLACED, *codec, "-flags",
            "+ildct+ilme",
        ),
    ]  # fmt: skip
    with av.open(str(path), "w") as container, av.open(str(parts[0])) as whole, av.open(str(parts[1])) as halves:
        stream = container.add_stream_from_template(whole.streams.video[0])
        packets = [packet for part in (whole, halves) for packet in part.demux(video=0) if packet.size]
        for t, packet in enumerate(packets):
            packet.pts, packet.dts, packet.time_base, packet.stream = t, t, Fraction(1, 25), stream
            container.mux(packet)
    return path


_INTERLACED = "scale=interl=1,setfield=tff,format=yuv420p"


def _fields(folder: Path, numbers: range, moments: int) -> list[str]:
    """FFmpeg's input of frames in which the bar is at this many moments."""
    frames = np.full((len(numbers), 128, 192, 3), 16, np.uint8)
    for frame, t in zip(frames, numbers, strict=True):
        for field in range(2):
            left = 8 * (2 * t + field % moments) % 160
            frame[field::2, left : left + 32] = 235
    raw = folder / f"fields{moments}.rgb"
    raw.write_bytes(frames.tobytes())
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "192x128", "-r", "25", "-i", str(raw)]


def pictures(folder: Path) -> Path:
    place = folder / "pictures"
    place.mkdir()
    for t, frame in enumerate(film(COUNT)):
        Image.fromarray(frame).save(place / f"{t}.png")  # 10 comes after 9
    (place / "notes.txt").write_text("not a picture")
    return place


def three_hours_mkv(folder: Path) -> Path:
    path = make(folder / "long.mkv", COUNT)
    return _patched(path, b"\x44\x89\x88", 0, ">d", HOURS * 1000.0)  # Duration, 8 bytes, ms


def three_hours_mp4(folder: Path) -> Path:
    path = make(folder / "long.mp4", COUNT)
    for atom in (b"mvhd", b"mdhd"):
        data = path.read_bytes()
        ticks = struct.unpack_from(">I", data, data.index(atom) + 16)[0]
        _patched(path, atom, 16, ">I", ticks * HOURS)
    return path


def wrong_count_avi(folder: Path) -> Path:
    path = make(folder / "count.avi", COUNT, "mpeg4", options={"b": "2000000"})
    _patched(path, b"avih", 4 + 16, "<I", 999_999)
    return _patched(path, b"strh", 4 + 32, "<I", 999_999)


def cut(share: float, folder: Path) -> Path:
    """A file with its header first, of which the beginning is left."""
    whole = _whole(folder).read_bytes()
    path = folder / f"cut{share}.mp4"
    begin = whole.index(b"mdat") + 8
    path.write_bytes(whole[: begin + int((len(whole) - begin) * share)])
    return path


def _whole(folder: Path) -> Path:
    path = folder / "whole.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "4", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        for picture in film(COUNT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


# --- files that give a sentence ---------------------------------------------------------------------


def empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("not a video\n" * 500)
    return path


def header_only(folder: Path) -> Path:
    return cut(0.0, folder)


def header_cut(folder: Path) -> Path:
    path = folder / "cut.mp4"
    whole = _whole(folder).read_bytes()
    path.write_bytes(whole[: whole.index(b"stts")])
    return path


def zero_frames(folder: Path) -> Path:
    path = folder / "zero.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    return path


def audio_only(folder: Path) -> Path:
    path = folder / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        block = av.AudioFrame.from_ndarray(chirp(0.1)[None], format="fltp", layout="mono")
        block.rate = RATE
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def wrong_count_mp4(folder: Path) -> Path:
    """A table of sizes that says more than it holds."""
    return _patched(make(folder / "count.mp4", COUNT), b"stsz", 8, ">I", 999_999)


def endless_mp4(folder: Path) -> Path:
    """Two thousand million frames of one byte, by its table."""
    return _patched(make(folder / "endless.mp4", COUNT), b"stsz", 4, ">II", 1, 2**31 - 1)


def a_line(folder: Path) -> Path:
    return make(folder / "line.mp4", 2, "mpeg4", size=(3200, 16))


def unlike_pictures(folder: Path) -> Path:
    place = pictures(folder)
    Image.new("RGB", (64, 64)).save(place / "5.png")
    return place


def broken_picture(folder: Path) -> Path:
    place = pictures(folder)
    (place / "5.png").write_bytes((place / "5.png").read_bytes()[:200])
    return place


def empty_folder(folder: Path) -> Path:
    place = folder / "nothing"
    place.mkdir()
    return place
