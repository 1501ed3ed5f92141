"""Containers: which kinds of files are opened, and how their video stream is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from adaflow_core.errors import AdaFlowError
from adaflow_core.video.coded.remedies import CONVERT

# Demuxers by FFmpeg's names. Without a list, a text file is a video (of its letters), and a playlist makes
# FFmpeg open whatever the playlist names.
CONTAINERS = "mov,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,apng,yuv4mpegpipe,mxf,dv"
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
_THREADS = 8  # of a decoder, each of which holds frames of its own
_LARGE = 128 * 2**20  # bytes; a slow disk copies as many in less than `client.STALL`
_INDEX, _ENTRY = 2**16, 48  # bytes of an mp4's index at most: of all but its packets, of each packet


@contextmanager
def open_video(path: Path, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream; AdaFlowError with the remedy if the file cannot be read."""
    try:
        # The absolute path, so that a name such as "concat:a" is not taken for a protocol.
        container = av.open(str(path.resolve()), options=OPTIONS | options, metadata_errors="replace")
    except (OSError, av.FFmpegError) as error:
        raise AdaFlowError(f"{path} is not a video that can be read; choose another file or {CONVERT}") from error
    with container:
        # The cover picture of a song is a video stream too.
        streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise AdaFlowError(f"{path} has no video stream; choose a file with pictures")
        stream = next((s for s in streams if s.disposition & s.disposition.default), streams[0])
        if stream.codec_context is None:
            raise AdaFlowError(f"{path} has a codec that is not known here; {CONVERT}")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(_THREADS, os.cpu_count() or 1)
        yield container, stream


def codec_name(stream: VideoStream) -> str:
    """The codec, not the decoder: "av1" for libdav1d."""
    return stream.codec_context.codec.canonical_name


def index_in_front(size: float, packets: int) -> dict[str, str]:
    """Options of FFmpeg's mp4 muxer with which a file plays while it is loaded.

    For `faststart` the whole file is moved at its end, in one call that keeps all other threads waiting and gives no
    sign of life. In a file of many bytes (`size`, a guess) room for the index of `packets` at most is left in front
    instead; the muxer fails where there are more.
    """
    return {"movflags": "+faststart"} if size < _LARGE else {"moov_size": str(_INDEX + _ENTRY * packets)}
