"""What is seen and heard in a film of flashes and tones, and how that differs from what is right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from adaflow_core.video.decode import decode_video
from adaflow_core.video.write import write_video
from helpers.videos.flashes import CORNERS, SIZE, Structure

SYNC = 0.02  # seconds that flash and tone may be apart


@dataclass(frozen=True)
class Measured:
    """What is seen and heard in a file, in seconds from its beginning."""

    flashes: list[float]
    tones: list[float]
    seconds: float  # of the picture
    corners: np.ndarray  # [2, 2, 3] of the first frame


def measure(path: Path) -> Measured:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        seconds = max(float((packet.pts + packet.duration) * packet.time_base) for packet in packets)
    height, width = frames[0][1].shape[:2]
    lit = [frame[height // 2, width // 2].mean() > 128 for _, frame in frames]
    flashes = [frames[n][0] for n in range(1, len(frames)) if lit[n] and not lit[n - 1]]
    rows, columns = (height // 8, 7 * height // 8), (width // 8, 7 * width // 8)
    corners = frames[0][1][np.ix_(rows, columns)]
    return Measured(flashes, _tones_of(path), seconds, corners)


def _tones_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        pieces = [
            (frame.pts * frame.time_base, frame.sample_rate, frame.to_ndarray()) for frame in container.decode(audio=0)
        ]
    if not pieces:
        return []
    rate = pieces[0][1]
    wave = np.zeros(round((float(pieces[-1][0]) + 1) * rate), np.float32)
    for time, _, data in pieces:
        samples = data[0] / (32768 if data.dtype == np.int16 else 1)
        begin = round(float(time) * rate)
        skipped = max(0, -begin)
        wave[begin + skipped : begin + len(samples)] = samples[skipped:]
    loud = np.abs(wave) > 0.3
    at = np.flatnonzero(loud) / rate
    return [float(time) for n, time in enumerate(at) if n == 0 or time - at[n - 1] > 0.05]


def faults(structure: Structure, path: Path) -> list[str]:
    """What is wrong with what is read from the film and written again; AdaFlowError if it is refused."""
    source = structure.write(path)
    size = SIZE if structure.turn[0] else SIZE[::-1]
    video = decode_video(source, size=size, frames=structure.frames)
    out = path.with_name(f"{path.stem}-out.mp4")
    write_video(out, video.frames, video.fps, audio_from=source, start=video.start, times=video.times)
    notes = [note for note in video.notes if "audio tracks, of which" not in note]  # which is no fault
    return [*notes, *differences(structure, measure(out))]


def differences(structure: Structure, found: Measured) -> list[str]:
    """How what is written differs from what is right."""
    flashes, tones, seconds = structure.expected()
    said = []
    frame = (structure.end / len(structure.times)) + 0.001
    if abs(found.seconds - seconds) > frame:
        said.append(f"{found.seconds:.3f} s for {seconds:.3f}")
    for name, times, right in (("flashes", found.flashes, flashes), ("tones", found.tones, tones)):
        if len(times) != len(right) or any(abs(a - b) > SYNC for a, b in zip(times, right, strict=True)):
            said.append(f"{name} at {np.round(times, 3).tolist()} for {np.round(right, 3).tolist()}")
    if (apart := apart_most(found)) > SYNC:
        said.append(f"a flash and its tone are {apart:.3f} s apart")
    if np.abs(found.corners.astype(int) - turned(structure.turn)).max() > 40:
        said.append(f"corners {found.corners.tolist()}")
    return said


def apart_most(found: Measured) -> float:
    """The largest distance of a tone to its flash; tones without a flash are beyond the picture."""
    pairs = [min(abs(flash - tone) for flash in found.flashes) for tone in found.tones if found.flashes]
    return max((apart for apart in pairs if apart < 0.15), default=0.0)


def turned(turn: tuple[int, int, int, int]) -> np.ndarray:
    """[2, 2, 3] the corners as a display matrix shows them."""
    a, b, c, d = turn
    shown = np.empty_like(CORNERS, dtype=int)
    for row in range(2):
        for column in range(2):  # centred coordinates: (x, y) goes to (a x + c y, b x + d y)
            x, y = 2 * column - 1, 2 * row - 1
            shown[int(b * x + d * y > 0), int(a * x + c * y > 0)] = CORNERS[row, column]
    return shown
