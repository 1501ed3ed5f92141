"""Streams that are valid and unusual: clocks, key frames, mirrored, HDR, tracks, names."""

from __future__ import annotations

import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from adaflow_core.cli.main import main
from adaflow_core.errors import AdaFlowError
from adaflow_core.video import pixels
from adaflow_core.video.decode import _uneven_times, decode_video, probe, thumbnails
from adaflow_core.video.pixels import BT2020, HLG, PQ, SRGB, to_bt709
from adaflow_core.video.write import check_output, write_video
from helpers.films import RATE, film, lag, make, number, sound_of
from helpers.videos.fields import STEP, in_fields
from helpers.videos.odd_files import ffmpeg

SIZE = (96, 64)
CORNERS = np.array([[[220, 30, 30], [30, 220, 30]], [[30, 30, 220], [220, 220, 30]]], np.uint8)


def transport_stream(path: Path, count: int, offset: float = 0, key_every: int = 12) -> Path:
    whole = make(
        path.with_suffix(".whole.mp4"),
        count,
        audio="aac",
        options={"g": str(key_every), "bf": "0", "sc_threshold": "0"},
    )
    return ffmpeg(path, "-i", str(whole), "-c", "copy", "-output_ts_offset", str(offset))


# --- times ------------------------------------------------------------------------------------------


def test_frames_close_to_each_other_keep_the_other_times(tmp_path: Path) -> None:
    times = [0, 100, 200, 300, 301, 400, 420, 440]
    video = decode_video(make(tmp_path / "a.mp4", len(times), times=times, rate=Fraction(1000)), size=SIZE)
    assert video.times is not None and video.times[:-1] == pytest.approx(np.array(times) / 1000, abs=2e-3)
    again = decode_video(write_video(tmp_path / "b.mp4", video.frames, video.fps, times=video.times), size=SIZE)
    assert again.times == pytest.approx(video.times, abs=2e-3)


def test_a_last_frame_that_stands_is_held(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    pictures = [Image.new("RGB", (96, 64), (level,) * 3) for level in (10, 80, 160, 240)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 100, 300, 2000])
    video = decode_video(path, size=SIZE)
    assert probe(path).seconds == pytest.approx(2.5) and video.times == pytest.approx([0, 0.1, 0.2, 0.5, 2.5])
    written = write_video(tmp_path / "b.mp4", video.frames, video.fps, times=video.times)
    assert probe(written).seconds == pytest.approx(2.5, abs=0.01) and probe(written).frames == 4
    assert decode_video(written, size=SIZE).times == pytest.approx(video.times, abs=2e-3)


def test_sound_that_is_longer_than_the_picture_is_kept(tmp_path: Path) -> None:
    sounding = make(tmp_path / "a.mp4", 72, audio="aac")
    silent = write_video(tmp_path / "b.mp4", film(24), Fraction(24))
    source = ffmpeg(
        tmp_path / "c.mp4", "-i", str(silent), "-i", str(sounding), "-map", "0:v", "-map", "1:a", "-c", "copy"
    )
    video = decode_video(source, size=SIZE)
    whole = write_video(tmp_path / "d.mp4", video.frames, video.fps, audio_from=source)
    part = write_video(tmp_path / "e.mp4", video.frames[:12], video.fps, audio_from=source)
    ends = [np.flatnonzero(np.abs(sound_of(path)[0]) > 0.02)[-1] / RATE for path in (whole, part)]
    assert 2.9 < ends[0] < 3.1 and 0.45 < ends[1] < 0.6


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3600, 0), (0, 3600)])
def test_a_clock_that_jumps_is_refused(first: float, second: float, tmp_path: Path) -> None:
    parts = [transport_stream(tmp_path / f"{n}.ts", 24, offset) for n, offset in enumerate((first, second))]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(AdaFlowError, match=r"clock of .* at frame 24; convert it"):
        probe(joined)
    assert probe(parts[0]).frames == 24


@pytest.mark.parametrize("start", [0, 12])
def test_a_recording_that_begins_between_key_frames_keeps_its_sound(start: int, tmp_path: Path) -> None:
    whole = transport_stream(tmp_path / "whole.ts", 96, key_every=24)
    data = whole.read_bytes()
    path = tmp_path / "midway.ts"
    path.write_bytes(data[len(data) // 188 // 3 * 188 :])
    video = decode_video(path, size=SIZE, frames=slice(start, start + 36))
    shown = number(video.frames[0])
    assert shown >= 24 and (shown - start) % 24 == 0 and len(video) == 36 and not video.notes
    written = write_video(tmp_path / "out.mp4", video.frames, video.fps, audio_from=path, start=video.start)
    reference = sound_of(whole.with_suffix(".whole.mp4"))[0][shown * RATE // 24 :][:RATE]
    assert abs(lag(sound_of(written)[0][:RATE], reference)) <= RATE // 40


STREAMS = {  # codec, and by how many frames a thumbnail may be off
    "a.ts": ("libx264", 0), "a.m2ts": ("libx264", 0), "a.avi": ("libx264", 2), "b.avi": ("mpeg4", 0),
    "a.mxf": ("libx264", 2), "a.wmv": ("libx264", 2), "a.mpg": ("libx264", 0), "b.mpg": ("mpeg2video", 0),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.thorough] * (k % 2)) for k, n in enumerate(STREAMS)]
)
def test_reordered_frames_are_found_by_their_number(name: str, tmp_path: Path) -> None:
    codec, most = STREAMS[name]
    path = make(tmp_path / name, 60, codec, options={"bf": "2", "g": "12", "b": "3000000"})
    for begin in (0, 13, 24, 59):
        video = decode_video(path, size=SIZE, frames=slice(begin, begin + 3))
        assert [number(frame) for frame in video.frames] == [*range(begin, min(begin + 3, 60))]
        assert video.times is None or video.times[0] == pytest.approx(begin / 24, abs=2e-3)
    numbers, pictures = thumbnails(path, 6)
    assert np.abs([number(picture) for picture in pictures] - numbers).max() <= most


def test_fields_are_no_frames(tmp_path: Path) -> None:
    path, copied = in_fields(tmp_path / "a.ts", 12, whole=(3, 4, 7)), tmp_path / "b.mp4"
    with av.open(str(path)) as source, av.open(str(copied), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            packet.stream = stream
            container.mux(packet)
    for found in (path, copied):
        video = decode_video(found, size=(64, 64), frames=slice(6, None))
        levels = (video.frames.mean((1, 2, 3)) * 219 / 255 + 16 - 40) / STEP
        assert levels == pytest.approx(range(6, 12), abs=0.2) and not video.notes
        assert video.fps == 25 and video.times is None


def test_frames_without_a_time_go_on_at_the_rate() -> None:
    assert _uneven_times([0.0, None, None, 0.3, None], None, Fraction(10), 0) is None
    assert _uneven_times([0.0, None, 0.3, 0.3, None], None, Fraction(10), 0) is None, "one stamp at two frames"
    assert _uneven_times([None, 0.5, 0.6], None, Fraction(10), 0) == pytest.approx((0.4, 0.5, 0.6, 0.7))


# --- sound ------------------------------------------------------------------------------------------


def test_the_default_track_is_taken(tmp_path: Path) -> None:
    sounding = make(tmp_path / "a.mp4", 24, audio="aac")
    source = ffmpeg(
        tmp_path / "b.mp4", "-i", str(sounding), "-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono", "-map", "0:v", "-map",
        "1:a", "-map", "0:a", "-shortest", "-c:v", "copy", "-disposition:a:0", "0", "-disposition:a:1", "default",
    )  # fmt: skip
    video = decode_video(source, size=SIZE)
    written = write_video(tmp_path / "c.mp4", video.frames, video.fps, audio_from=source)
    assert np.abs(sound_of(written)[0]).max() > 0.3
    assert video.notes == ("b.mp4 has 2 audio tracks, of which the default one is kept",)


def test_subtitles_that_are_left_out_are_said(tmp_path: Path) -> None:
    texts = tmp_path / "a.srt"
    texts.write_text("1\n00:00:00,000 --> 00:00:01,000\nA red ball\n")
    sounding = make(tmp_path / "a.mp4", 24, audio="aac", options={"g": "12"})
    assert not probe(sounding).notes
    both = ["-i", str(sounding), "-i", str(texts), "-c", "copy", "-map", "0:v", "-map", "1"]
    one = ffmpeg(tmp_path / "one.mkv", *both, "-map", "0:a")
    assert probe(one).notes == ("one.mkv has subtitles, which are left out",)
    more = ffmpeg(tmp_path / "more.mkv", *both, "-map", "0:a", "-map", "0:a")
    said = "more.mkv has 2 audio tracks, of which the default one is kept, and subtitles, which are left out"
    assert probe(more).notes == (said,)
    assert [number(picture) for picture in thumbnails(more, 3)[1]] == [0, 12, 23]


def test_sound_of_a_transport_stream_in_mp2_is_encoded(tmp_path: Path) -> None:
    sounding = make(tmp_path / "a.mp4", 24, audio="aac")
    source = ffmpeg(tmp_path / "b.ts", "-i", str(sounding), "-c:v", "copy", "-c:a", "mp2")
    video = decode_video(source, size=SIZE)
    wave, codec = sound_of(write_video(tmp_path / "c.mp4", video.frames, video.fps, audio_from=source))
    assert codec == "aac" and np.abs(wave).max() > 0.3


def test_sound_of_long_ticks_is_placed_exactly(tmp_path: Path) -> None:
    """In AVI a tick of MP3 is a packet, 24 ms; the beginning of frame 2 lies between two."""
    source = make(tmp_path / "a.avi", 48, "mpeg4", audio="libmp3lame")
    waves = []
    for begin in (0, 2):
        video = decode_video(source, size=SIZE, frames=slice(begin, None))
        path = write_video(
            tmp_path / f"{begin}.mp4", video.frames, video.fps, audio_from=source, start=begin, times=video.times
        )
        waves.append(sound_of(path)[0])
        shift = 0 if video.times is None else video.times[0]
    assert abs(lag(waves[1][:RATE], waves[0][round((shift or 2 / 24) * RATE) :][:RATE])) <= RATE // 1000


# --- pixels -----------------------------------------------------------------------------------------


def with_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Four coloured corners, with a display matrix (a b, c d)."""
    frames = CORNERS.repeat(64, 0).repeat(96, 1)[None].repeat(3, 0)
    data = bytearray(write_video(path, frames, Fraction(10)).read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0)])
def test_the_display_matrix_is_applied(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    a, b, c, d = matrix
    path = with_display_matrix(tmp_path / "a.mp4", matrix)
    size = SIZE if a else SIZE[::-1]
    info = probe(path)
    assert (info.width > info.height) == bool(a)
    for picture in (decode_video(path, size=size).frames[0], thumbnails(path, 2)[1][1]):
        for row in range(2):
            for column in range(2):  # centred coordinates: (x, y) goes to (a x + c y, b x + d y)
                x, y = 2 * column - 1, 2 * row - 1
                to_x, to_y = a * x + c * y, b * x + d * y
                height, width = picture.shape[:2]
                found = picture[height // 4 if to_y < 0 else -height // 4, width // 4 if to_x < 0 else -width // 4]
                assert np.abs(found.astype(int) - CORNERS[row, column]).max() < 12


def test_a_colour_matrix_that_is_not_known_is_named(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 3)
    path = ffmpeg(tmp_path / "b.mp4", "-i", str(source), "-c:v", "libx264", "-colorspace", "ycgco")
    with pytest.raises(AdaFlowError, match="colour matrix") as caught:
        decode_video(path, size=SIZE)
    command = str(caught.value).partition("with: ")[2].replace("OUTPUT", str(tmp_path / "c"))
    done = subprocess.run([*command.replace("INPUT", str(path)).split(), "-v", "error"], capture_output=True, text=True)
    if "zscale" in done.stderr:
        pytest.skip("this ffmpeg has no zscale")
    assert done.returncode == 0 and len(decode_video(tmp_path / "c.mp4", size=SIZE)) == 3


@pytest.mark.parametrize(("transfer", "name", "code"), [(PQ, "smpte2084", 572), (HLG, "arib-std-b67", 721)])
def test_hdr_is_tone_mapped(transfer: int, name: str, code: int, tmp_path: Path) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV has no encoder libx265")
    frame = av.VideoFrame(192, 128, "yuv420p10le")
    for plane, level in zip(frame.planes, (code, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
    path = tmp_path / "a.mp4"
    options = {"x265-params": f"log-level=none:colorprim=bt2020:transfer={name}:colormatrix=bt2020nc"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p10le"
        for pts in range(3):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = decode_video(path, size=SIZE)
    assert len(video.notes) == 1 and "HDR" in video.notes[0]
    assert 240 <= video.frames.min() <= video.frames.max() <= 255  # reference white, with room for highlights


def test_tone_mapping_keeps_what_standard_range_has() -> None:
    """PQ codes of BT.2020 for three BT.709 colours, as zimg computes them."""
    expected = np.array([[[128, 128, 128], [200, 40, 40], [30, 60, 180]]])
    linear = (expected / 255) ** 2.4
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    power = (linear @ to_2020.T * 203 / 10000) ** (2610 / 16384)
    codes = ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    assert np.abs(to_bt709((codes * 65535).round().astype(np.uint16), PQ, BT2020).astype(int) - expected).max() <= 1


def test_levels_come_back_in_every_band(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of greys no primaries change anything, down to the darkest."""
    levels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(5, 1).repeat(3, 2)
    for transfer in (1, 4, 5, SRGB):
        assert np.array_equal(to_bt709(levels * np.uint16(257), transfer, 12), levels)
    codes = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    whole = to_bt709(codes, HLG, BT2020)
    monkeypatch.setattr(pixels, "_BAND", 64)
    assert np.array_equal(to_bt709(codes, HLG, BT2020), whole)


# --- names ------------------------------------------------------------------------------------------


def test_names_of_outputs_work_or_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for link, target in {"circle": "circle.mp4", "nowhere": "/dev/null/a.mp4", "device": "/dev/null"}.items():
        (tmp_path / f"{link}.mp4").symlink_to(target)
    for name in ("12:30.mp4", "x" * 220 + ".mp4"):
        assert len(decode_video(write_video(name, film(3), Fraction(10)), size=SIZE)) == 3
    for name in ("x" * 300 + ".mp4", "\0.mp4", "file/a.mp4", "circle.mp4", "nowhere.mp4"):
        with pytest.raises(AdaFlowError, match="choose another folder or name"):
            check_output(name)
    for name in ("folder.mp4", "device.mp4"):
        with pytest.raises(AdaFlowError, match="a folder or a device"):
            check_output(name)


def test_the_source_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make(tmp_path / "a.mp4", 3)
    before = source.read_bytes()
    assert main(["edit", str(source), "--prompt", "a ball", "--out", str(tmp_path / "." / "a.mp4")]) == 2
    assert "is the source itself" in capsys.readouterr().err and source.read_bytes() == before


def test_an_output_that_is_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "a.mp4"
    link.symlink_to(tmp_path / "real" / "b.mp4")
    write_video(link, film(3), Fraction(10))
    assert link.is_symlink() and probe(tmp_path / "real" / "b.mp4").frames == 3
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["b.mp4"]


@pytest.mark.parametrize("name", ["link.mp4", "hard.mp4"])
def test_another_name_of_the_source_is_refused(name: str, tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 3)
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(source)
    with pytest.raises(AdaFlowError, match="is the source itself"):
        check_output(tmp_path / name, source)


def test_what_the_muxer_says_is_a_sentence(tmp_path: Path) -> None:
    """An mp4 takes no times that go back."""
    with pytest.raises(AdaFlowError, match=r"cannot write .*; free space or choose another folder"):
        write_video(tmp_path / "a.mp4", film(3), Fraction(10), times=(0, 1, 0.5, 2))
    assert not list(tmp_path.iterdir())
