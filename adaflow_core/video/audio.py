"""The sound of a source file, cut to the edited frames and muxed with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph

from adaflow_core.progress import Monitor
from adaflow_core.video.coded.container import OPTIONS, index_in_front

# Copied packet by packet, as every browser plays them in an mp4; anything else becomes AAC.
_COPIED = ("aac", "mp3")
_AAC_FRAME = 1024  # samples
_PACKETS = 100  # a second, at most: AAC of 96 kHz has 94
_EARLIER = 2  # seconds; sound may lie in front of the pictures that it goes with


def add_sound(video: Path, source: Path, out: Path, begin: Fraction, length: Fraction, monitor: Monitor) -> bool:
    """Writes `video` with the default track of `source` from `begin` to `begin + length` seconds to `out`.

    False if no sound of that time can be read. Runs in the process of `worker`.
    """
    with _opened(source) as container:
        track = _default_track(container)
        if track is None:
            return False
        copied = track.codec_context.codec.canonical_name in _COPIED
    if copied:
        with suppress(av.FFmpegError, _Broken):  # the muxer refuses the packets
            return _mux(_copied, video, source, out, begin, length, monitor)
    return _mux(_encoded, video, source, out, begin, length, monitor)


def _opened(source: Path, begin: Fraction = Fraction(0)) -> InputContainer:
    """Somewhere before `begin` seconds."""
    container = av.open(str(source.resolve()), options=OPTIONS, metadata_errors="replace")
    if begin > _EARLIER:
        try:
            container.seek(int((begin - _EARLIER) * av.time_base))
        except av.FFmpegError:  # it cannot: a short program stream
            container.close()
            return _opened(source)
    return container


class _Broken(Exception):
    """Packets do not follow each other: what is missing, or double, must be decoded."""


def _default_track(container: InputContainer) -> AudioStream | None:
    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    return next((track for track in tracks if track.disposition & track.disposition.default), next(iter(tracks), None))


def _mux(
    make_packets: Callable[..., Iterator[av.Packet]],
    video: Path,
    source: Path,
    out: Path,
    begin: Fraction,
    length: Fraction,
    monitor: Monitor,
) -> bool:
    """Whether any packets of sound came."""
    with (
        _opened(source, begin) as sounding,
        av.open(str(video.resolve())) as silent,
        av.open(str(out.resolve()), "w", format="mp4", options=_options(silent, sounding, length)) as container,
    ):
        container.metadata.update(silent.metadata)
        stream = container.add_stream_from_template(silent.streams.video[0])
        packets = make_packets(container, sounding, _default_track(sounding), begin, length)
        sound = next(packets, None)
        sounds = sound is not None
        for packet in silent.demux(video=0):
            monitor.check()
            if packet.dts is None:  # the end
                continue
            while sound is not None and (sound.dts or 0) * sound.time_base < packet.dts * packet.time_base:
                monitor.check()
                container.mux(sound)
                sound = next(packets, None)
            packet.stream = stream
            container.mux(packet)
        for packet in chain([] if sound is None else [sound], packets):
            monitor.check()
            container.mux(packet)
    return sounds


def _options(silent: InputContainer, sounding: InputContainer, length: Fraction) -> dict[str, str]:
    """Of the file with both; the sound may be longer than its header says by another such film."""
    seconds = min(
        float(length), 2 * (sounding.duration or 0) / av.time_base + float(silent.duration or 0) / av.time_base
    )
    return index_in_front(silent.size, silent.streams.video[0].frames + round(_PACKETS * seconds))


def _copied(
    container: OutputContainer, source: InputContainer, sound: AudioStream, begin: Fraction, length: Fraction
) -> Iterator[av.Packet]:
    stream = container.add_stream_from_template(sound)
    assert sound.time_base is not None
    # Samples: the source's ticks may be as long as packets (AVI).
    base, following = Fraction(1, sound.codec_context.sample_rate or 48000), None
    with suppress(av.FFmpegError):  # a file that breaks off
        for packet in source.demux(sound):
            if packet.pts is None or packet.is_discard:
                continue
            time, duration = packet.pts * sound.time_base - begin, (packet.duration or 0) * sound.time_base
            # The packet that straddles the beginning is kept: its time is below 0, and the edit list that
            # the muxer writes starts playing in the middle of it.
            if time + duration <= 0:
                continue
            if time >= length:
                return
            if following is not None and 2 * abs(time - following) > duration:
                raise _Broken
            following = time + duration
            dts = None if packet.dts is None else packet.dts * sound.time_base - begin
            packet.pts, packet.dts = round(time / base), None if dts is None else round(dts / base)
            packet.duration, packet.time_base = round(duration / base), base
            packet.stream = stream
            yield packet


def _encoded(
    container: OutputContainer, source: InputContainer, sound: AudioStream, begin: Fraction, length: Fraction
) -> Iterator[av.Packet]:
    begins, ends = float(begin), float(begin + length)

    def decoded() -> Iterator[av.AudioFrame]:
        with suppress(av.FFmpegError):
            for packet in source.demux(sound):
                with suppress(av.FFmpegError):  # one damaged packet
                    yield from packet.decode()

    frames = takewhile(lambda frame: frame.time is None or frame.time < ends, decoded())
    first = next(frames, None)
    if first is None:
        return
    base = Fraction(1, first.sample_rate)  # in which times are cut: AVI's ticks are as long as packets
    layout = "mono" if first.layout.nb_channels == 1 else "stereo"
    stream = container.add_stream("aac", rate=48000, layout=layout)
    graph = Graph()
    graph.link_nodes(
        # By the first frame: a header can name another sample format than the decoder gives.
        graph.add_abuffer(sample_rate=first.sample_rate, format=first.format, layout=first.layout, time_base=base),
        graph.add("atrim", f"start={begins:.6f}:end={ends:.6f}"),
        graph.add("asetpts", f"PTS-{begins:.6f}/TB"),
        # Counts samples from 0 on, whatever the source's clock (WebM's ticks are whole milliseconds), and
        # fills what is missing with silence.
        graph.add("aresample", "48000:async=1:first_pts=0:min_hard_comp=0.005"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates=48000:channel_layouts={layout}"),
        graph.add("abuffersink"),
    ).configure()
    graph.set_audio_frame_size(_AAC_FRAME)
    for frame in chain([first], frames, [None]):  # None: no more
        if frame is not None and frame.pts is not None and frame.time_base:
            frame.pts, frame.time_base = round(frame.pts * frame.time_base / base), base
        with suppress(av.EOFError):
            graph.push(frame)
        with suppress(av.BlockingIOError, av.EOFError):  # it wants more, or it is done
            while True:
                part = graph.pull()
                assert isinstance(part, av.AudioFrame)
                yield from stream.encode(part)
    yield from stream.encode(None)
