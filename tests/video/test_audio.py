"""The sound of a source stays beside its frames, copied or encoded anew."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from adaflow_core.video.decode import decode_video, probe
from adaflow_core.video.write import write_video
from helpers.films import RATE, film, make


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


def test_sound_that_cannot_be_read_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="without the sound"):
        path = write_video(tmp_path / "a.mp4", film(3), Fraction(10), audio_from=tmp_path / "gone.mp4")
    assert probe(path).frames == 3 and not probe(path).has_audio
    silent = write_video(tmp_path / "b.mp4", film(3), Fraction(10), audio_from=path)
    assert not probe(silent).has_audio
