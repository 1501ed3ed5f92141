"""The sound of a source stays beside its frames, copied or encoded anew."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from adaflow_core.progress import Monitor
from adaflow_core.video.audio import add_sound
from adaflow_core.video.coded import container
from adaflow_core.video.decode import decode_video, probe
from adaflow_core.video.write import write_video
from helpers.films import RATE, film, lag, make, sound_of


@pytest.mark.parametrize(
    ("name", "audio", "expected"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.webm", "libopus", "aac"),
        ("a.mov", "pcm_s16le", "aac"),
        ("b.mp4", "libmp3lame", "mp3"),
    ],
)
@pytest.mark.parametrize("start", [0, 24])
def test_sound_stays_beside_its_frames(name: str, audio: str, expected: str, start: int, tmp_path: Path) -> None:
    if audio not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {audio}")
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    source = make(tmp_path / name, 96, codec, audio=audio)
    assert probe(source).has_audio
    video = decode_video(source, size=(96, 64), frames=slice(start, start + 48))
    path = write_video(tmp_path / "out.mp4", video.frames, video.fps, audio_from=video.source, start=video.start)
    wave, written = sound_of(path)
    assert written == expected
    heard = np.flatnonzero(np.abs(wave) > 0.02) / RATE
    assert heard[0] < 0.08 and 1.95 < heard[-1] < 2.08
    reference, _ = sound_of(source)
    reference = reference[start * RATE // 24 :][: 2 * RATE]
    assert abs(lag(wave[: 2 * RATE], reference)) <= 48  # a millisecond


def test_a_large_film_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index is in front without moving all of it at the end, which takes long and gives no sign of life."""
    source = make(tmp_path / "a.mp4", 48, audio="aac")
    for large in (False, True):
        monkeypatch.setattr(container, "_LARGE", 0 if large else 2**27)
        silent, out = write_video(tmp_path / "b.mp4", film(48), Fraction(24)), tmp_path / "c.mp4"
        assert add_sound(silent, source, out, Fraction(0), Fraction(10**6), Monitor())
        for path in (silent, out):
            boxes = boxes_of(path)
            names = [name for name, _ in boxes]
            assert names.index(b"moov") < names.index(b"mdat")
            assert (max(size for name, size in boxes if name == b"free") > 1000) == large  # room for the index
            assert len(decode_video(path, size=(96, 64))) == 48
        assert sound_of(out)[1] == "aac"


def boxes_of(path: Path) -> list[tuple[bytes, int]]:
    """The names and sizes of an mp4's boxes."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append((data[at + 4 : at + 8], int.from_bytes(data[at : at + 4])))
        at += found[-1][1]
    return found


def test_sound_that_cannot_be_read_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="without the sound"):
        path = write_video(tmp_path / "a.mp4", film(3), Fraction(10), audio_from=tmp_path / "gone.mp4")
    assert probe(path).frames == 3 and not probe(path).has_audio
    monitor = Monitor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_video(tmp_path / "c.mp4", film(3), Fraction(10), audio_from=tmp_path / "gone.mp4", monitor=monitor)
    assert len(monitor.notes) == 1 and "without the sound of gone.mp4" in monitor.notes[0]
    broken = tmp_path / "broken.mkv"
    with av.open(str(make(tmp_path / "a.mkv", 12, audio="mp2"))) as sound, av.open(str(broken), "w") as copy:
        streams = [copy.add_stream_from_template(stream) for stream in sound.streams]
        for packet in (packet for packet in sound.demux() if packet.size):
            if packet.stream.type == "audio":
                packet.update(bytes(packet.size))
            packet.stream = streams[packet.stream.index]
            copy.mux(packet)
    monitor = Monitor()
    again = write_video(tmp_path / "d.mp4", film(3), Fraction(10), audio_from=broken, monitor=monitor)
    assert monitor.notes == ["no sound of these frames can be read; written without the sound of broken.mkv"]
    assert probe(again).frames == 3 and probe(broken).has_audio and not probe(again).has_audio
    silent = write_video(tmp_path / "b.mp4", film(3), Fraction(10), audio_from=path)
    assert not probe(silent).has_audio
