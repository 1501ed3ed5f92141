"""The sound of a source file, cut to the edited frames and written beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph

from adaflow_core.progress import Monitor
from adaflow_core.video.reader import OPTIONS

# What every browser plays in an mp4 is copied packet by packet; anything else becomes AAC.
_COPIED = ("aac", "mp3")
_AAC_FRAME = 1024  # samples


def add_sound(video: Path, source: Path, out: Path, begin: Fraction, length: Fraction, monitor: Monitor) -> bool:
    """Writes `video` with the sound of `source` from `begin` seconds of its video on to `out`.

    False if there is no sound to add; then nothing is written. Runs in the process of `worker`.
    """
    with ExitStack() as stack:
        sounding = stack.enter_context(av.open(str(source.resolve()), options=OPTIONS, metadata_errors="replace"))
        if not sounding.streams.audio or sounding.streams.audio[0].codec_context is None:
            return False
        silent = stack.enter_context(av.open(str(video.resolve())))
        container = stack.enter_context(av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}))
        container.metadata.update(silent.metadata)
        shown = silent.streams.video[0]
        stream = container.add_stream_from_template(shown)
        packets = _packets(container, sounding, begin, length)
        waiting = next(packets, None)
        for packet in silent.demux(shown):
            monitor.check()
            if packet.dts is None:  # the end
                continue
            while waiting is not None and (waiting.dts or 0) * waiting.time_base < packet.dts * packet.time_base:
                monitor.check()
                container.mux(waiting)
                waiting = next(packets, None)
            packet.stream = stream
            container.mux(packet)
        for packet in chain([] if waiting is None else [waiting], packets):
            monitor.check()
            container.mux(packet)
    return True


def _packets(
    container: OutputContainer, opened: InputContainer, begin: Fraction, length: Fraction
) -> Iterator[av.Packet]:
    """Packets whose time counts from the first edited frame."""
    sound = opened.streams.audio[0]
    if opened.streams.video:  # frame 0 need not be shown at time 0
        video = opened.streams.video[0]
        begin += (video.start_time or 0) * (video.time_base or Fraction(0))
    if begin > 0:
        opened.seek(int(begin * av.time_base))
    copied = sound.codec_context.codec.canonical_name in _COPIED
    return (_copied if copied else _encoded)(container, opened, sound, begin, length)


def _copied(
    container: OutputContainer, opened: InputContainer, sound: AudioStream, begin: Fraction, length: Fraction
) -> Iterator[av.Packet]:
    stream = container.add_stream_from_template(sound)
    assert sound.time_base is not None
    offset = round(begin / sound.time_base)
    with suppress(av.FFmpegError):  # a file that breaks off
        for packet in opened.demux(sound):
            if packet.pts is None:
                continue
            time = packet.pts - offset
            # The packet that straddles the beginning is kept: its time is below 0, and the edit list that
            # the muxer writes starts playing in the middle of it.
            if time + (packet.duration or 0) <= 0:
                continue
            if time * sound.time_base >= length:
                return
            packet.pts = time
            packet.dts = None if packet.dts is None else packet.dts - offset
            packet.stream = stream
            yield packet


def _encoded(
    container: OutputContainer, opened: InputContainer, sound: AudioStream, begin: Fraction, length: Fraction
) -> Iterator[av.Packet]:
    layout = "mono" if sound.codec_context.channels == 1 else "stereo"
    stream = container.add_stream("aac", rate=48000, layout=layout)
    graph = Graph()
    begins, ends = float(begin), float(begin + length)
    nodes = [
        graph.add_abuffer(template=sound),
        graph.add("atrim", f"start={begins:.6f}:end={ends:.6f}"),
        graph.add("asetpts", f"PTS-{begins:.6f}/TB"),
        # Counts samples from 0 on, whatever the source's clock (WebM's ticks are whole milliseconds), and
        # fills what is missing with silence.
        graph.add("aresample", "48000:async=1:first_pts=0"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates=48000:channel_layouts={layout}"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    graph.set_audio_frame_size(_AAC_FRAME)

    def decoded() -> Iterator[av.AudioFrame]:
        with suppress(av.FFmpegError):
            for packet in opened.demux(sound):
                with suppress(av.FFmpegError):  # one damaged packet
                    yield from packet.decode()

    def filtered() -> Iterator[av.AudioFrame]:
        with suppress(av.BlockingIOError, av.EOFError):  # it wants more, or it is done
            while True:
                frame = graph.pull()
                assert isinstance(frame, av.AudioFrame)
                yield frame

    wanted = takewhile(lambda frame: frame.time is None or frame.time < ends, decoded())
    for frame in chain(wanted, [None]):  # None: no more
        with suppress(av.EOFError):
            graph.push(frame)
        for part in filtered():
            yield from stream.encode(part)
    yield from stream.encode(None)
