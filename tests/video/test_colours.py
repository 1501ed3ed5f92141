"""A colour chart through reading, editing and writing: ranges, matrices, transfers, primaries and pixel formats."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from adaflow_core.cli.main import main
from adaflow_core.video.decode import decode_video, probe, thumbnails
from adaflow_core.video.pixels import upright_rgb
from adaflow_core.video.write import write_video
from helpers.videos.colours import HDR, SIZE, Tags, expected, patches, write_chart

MOST = 3  # levels
CHARTS = {
    **{f"{name}-{'full' if full else 'limited'}": Tags(matrix=number, full=full)
       for name, number in {"709": 1, "fcc": 4, "601-625": 5, "601-525": 6, "240m": 7, "2020": 9}.items()
       for full in (False, True)},
    **{f"transfer-{name}": Tags("yuv444p12le", transfer=number)
       for name, number in {
           "gamma22": 4, "gamma28": 5, "601": 6, "240m": 7, "linear": 8, "srgb": 13, "2020": 14}.items()},
    **{f"primaries-{name}": Tags("yuv444p10le", primaries=number)
       for name, number in {"601-625": 5, "601-525": 6, "2020": 9, "dci-p3": 11, "display-p3": 12}.items()},
    "dvd-pal": Tags("yuv420p", 5, False, 5, 5),
    "dvd-ntsc": Tags("yuv420p", 6, False, 6, 6),
    "phone-p3": Tags("yuv420p", 6, True, 1, 12),
    "uhd-sdr": Tags("yuv420p10le", 9, False, 14, 9),
    "hdr-pq": Tags("yuv420p10le", 9, False, 16, 9),
    "hdr-hlg": Tags("yuv420p10le", 9, False, 18, 9),
    "hdr-pq-p3": Tags("yuv444p12le", 9, True, 16, 12),
    "p3-srgb": Tags("gbrp10le", 0, True, 13, 12),
    **{f"pixels-{name}": Tags(name, 0 if name.startswith("gbr") else 1, name.startswith("gbr"))
       for name in ("yuv420p", "yuv422p", "yuv420p10le", "yuv422p10le", "yuv422p12le", "yuv444p12le", "gbrp10le",
                    "gbrp12le", "gray", "gray10le", "gray12le")},
    "pixels-gray-full": Tags("gray", full=True),
    "untagged": Tags("yuv420p", 2, False, 2, 2),
    "hdr-pq-without-a-matrix": Tags("yuv420p10le", 2, False, 16, 9),
    "hdr-hlg-without-a-matrix": Tags("yuv420p10le", 2, False, 18, 9),
    "2020-primaries-alone": Tags("yuv420p10le", 2, False, 14, 9),
}  # fmt: skip


def deviation(found: np.ndarray, tags: Tags) -> float:
    right, levels = expected(tags), patches(found)
    off = np.abs(levels - right)
    if tags.transfer in HDR:
        # From 80 % of white's light on, room is made for highlights: nine levels at white.
        off[right.max(axis=1) > 255 * 0.8 ** (1 / 2.4)] /= 3
        off[np.abs((levels / 255) ** 2.4 - (right / 255) ** 2.4) < 1e-4] = 0  # of white's light: five levels at black
    return float(off.max())


def as_read(path: Path) -> np.ndarray:
    """The first frame as the decoding process makes it."""
    with av.open(str(path)) as container:
        return upright_rgb(next(container.decode(video=0)), SIZE, VideoReformatter())


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_read_within_three_levels(name: str, tmp_path: Path) -> None:
    tags = CHARTS[name]
    path = write_chart(tmp_path / "a.mkv", tags)
    assert deviation(as_read(path), tags) <= MOST


WRITTEN = (
    "dvd-pal", "phone-p3", "p3-srgb", "transfer-linear", "601-525-full", "pixels-gray", "hdr-pq", "hdr-hlg",
)  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_chart_is_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    tags = CHARTS[name]
    video = decode_video(write_chart(tmp_path / "a.mkv", tags), size=SIZE)
    path = write_video(tmp_path / "b.mp4", video.frames, video.fps, transfer=video.transfer)
    assert deviation(video.frames[0], tags) <= MOST and deviation(decode_video(path, size=SIZE).frames[0], tags) <= MOST
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    declared = frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range
    assert declared == (1, 1, 1 if tags.transfer in (8, *HDR) else tags.transfer, 1)


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("primaries", [1, 6])
def test_thumbnails_have_the_colours_of_the_frames(matrix: int, primaries: int, tmp_path: Path) -> None:
    tags = Tags("yuv420p", matrix, False, matrix, primaries)
    path = write_chart(tmp_path / "a.mp4", tags, "libx264", 12)
    assert probe(path).codec == "h264"
    assert deviation(thumbnails(path, 2, SIZE[1])[1][1], tags) <= 2 * MOST


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["phone-p3", "hdr-pq", "hdr-hlg"])
def test_an_edit_that_changes_nothing_keeps_the_chart(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    tags, out = CHARTS[name], tmp_path / "b.mp4"
    path = write_chart(tmp_path / "a.mkv", tags)
    command = ["edit", str(path), "--prompt", "a ball", "--source-prompt", "a ball", "--out", str(out)]
    assert main([*command, "--size", "256x96", "--steps", "2", "--keyframes", "1"]) == 0
    assert deviation(decode_video(out, size=SIZE).frames[0], tags) <= MOST
