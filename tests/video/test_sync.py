"""Sound beside picture: films of which flashes and tones begin together, of many structures."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.video.decode import probe
from helpers.videos import fuzz
from helpers.videos.flashes import TURNS, Structure
from helpers.videos.measured import apart_most, differences, faults, measure
from helpers.videos.odd_files import ffmpeg


def steady(count: int, rate: Fraction) -> dict[str, Any]:
    """The times of so many frames at an even rate, for a `Structure`."""
    return {"rate": rate, "times": tuple(float(n / rate) for n in range(count)), "end": float(count / rate)}


EVEN = tuple(n / 25 for n in range(75))
UNEVEN = tuple(np.cumsum([0, *np.tile([0.03, 0.05, 0.12, 0.02], 12)]).round(3).tolist())
STANDING = tuple(n / 25 for n in range(75) if not 20 < n < 50)
STRUCTURES = {
    "constant": Structure(),
    "constant, NTSC, reordered": Structure(
        rate=Fraction(30000, 1001), times=tuple(n * 1.001 / 30 for n in range(90)), end=3.003, b_frames=2
    ),
    "uneven": Structure("mkv", times=UNEVEN, end=2.7, audio="libopus", audio_range=(0, 2.7)),
    "uneven by less than half a frame": Structure(
        rate=Fraction(10), times=tuple(n / 10 + 0.04 * (n % 3 == 1) for n in range(30)), b_frames=2
    ),
    "a part of it": Structure(
        times=UNEVEN, end=2.7, b_frames=2, audio_range=(0, 2.7), frames=slice(7, 30)
    ).between_tones(),
    "frames stand": Structure("flv", times=STANDING),
    "the last frame stands": Structure(times=EVEN[:40], b_frames=2, sample_rate=44100),
    "late sound": Structure("ts", start=100.0, audio="mp2", audio_range=(0.35, 3.7)),
    "early sound": Structure("mov", start=0.3, audio="pcm_s16le", audio_range=(-0.2, 2.5)),
    "sound with a hole": Structure(audio="libmp3lame", silence=(1.0, 1.3), silent_tracks=(2, 1)),
    "the default picture is the second": Structure("mkv", second_picture=-1),
    "cut by an edit list": Structure(b_frames=2, keys=50, segments=((0.28, 2.24),), turn=TURNS[5]),
    "sound moved by an edit list": Structure("mov", late_sound=-0.25),
    "fragmented": Structure(fragmented=True, keys=25),
    "cut within a frame": Structure("mov", "mpeg4", keys=1, segments=((0.3, 2.25),)),
    "cut within a frame, reordered": Structure(
        b_frames=2, keys=50, segments=((0.29, 2.25),), frames=slice(20, None)
    ).between_tones(),
    "cut in front, of key frames only, the last one stands": Structure(
        "mp4", "mpeg4", keys=1, times=EVEN[:60], end=4.0, segments=((0.3, 4.0),)
    ),
    "an even part behind a frame that stands": Structure(
        "mkv", times=(*EVEN[:2], *EVEN[4:]), frames=slice(9, None)
    ).between_tones(),
    "AVI, reordered": Structure("avi", "mpeg4", b_frames=2, audio="pcm_s16le"),
    "AVI, H.264": Structure("avi", audio="ac3"),
    "AVI, H.264, reordered": Structure("avi", b_frames=2, audio="pcm_s16le"),
    "AVI, H.264, reordered, a part of it": Structure(
        "avi", b_frames=2, audio="pcm_s16le", frames=slice(14, 60)
    ).between_tones(),
    "MXF, reordered": Structure("mxf", "mpeg2video", b_frames=2, audio="pcm_s16le"),
    "MXF, H.264, reordered": Structure("mxf", b_frames=2, audio="pcm_s16le", frames=slice(14, None)).between_tones(),
    "WMV, H.264, reordered": Structure("wmv", b_frames=2, audio="wmav2"),
    "stamps of a program stream at the wrong frame": Structure(
        "mpg",
        "mpeg2video",
        **steady(94, Fraction(30)),
        keys=1,
        b_frames=2,
        audio="mp2",
        audio_range=(0, 94 / 30),
        frames=slice(21, 46),
    ),
    "few stamps in a program stream": Structure("mpg", b_frames=2, audio="mp2"),
    "a program stream that cannot be sought": Structure(
        "vob", "mpeg2video", b_frames=2, audio="ac3", frames=slice(14, None)
    ).between_tones(),
    "a program stream whose end has no stamps": Structure(
        "vob",
        "mpeg2video",
        **steady(88, Fraction(30000, 1001)),
        keys=5,
        b_frames=2,
        start=0.3003,
        audio="ac3",
        audio_range=(-0.2, 2.436),
    ),
    "sound in front of its pictures": Structure(
        "vob",
        "mpeg2video",
        **steady(98, Fraction(30)),
        keys=5,
        b_frames=2,
        audio="ac3",
        audio_range=(0.35, 2.767),
        frames=slice(10, None),
    ),
    "AVI, ticks of sound as long as packets": Structure(
        "avi",
        **steady(160, Fraction(60)),
        keys=5,
        audio="ac3",
        audio_range=(0, 160 / 60),
        frames=slice(33, None),
    ),
    "the last frame shown is not the last decoded": Structure(
        "mov",
        times=tuple(np.cumsum([0, *np.tile([0.04, 0.12], 20)]).round(3).tolist()),
        end=3.24,
        b_frames=2,
        audio="pcm_s16le",
        audio_range=(0, 3.24),
    ),
    "interlaced": Structure("mpg", "mpeg2video", audio="mp2", interlaced=True),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.thorough] * (k % 2)) for k, n in enumerate(STRUCTURES)]
)
def test_flash_and_tone_stay_together(name: str, tmp_path: Path) -> None:
    assert STRUCTURES[name].expected()[0], "no flash"
    assert not faults(STRUCTURES[name], tmp_path / "film")


@pytest.mark.parametrize("keys", [12, 1])
def test_several_parts_of_an_edit_list_are_refused(keys: int, tmp_path: Path) -> None:
    path = Structure(b_frames=2 * (keys > 1), keys=keys, segments=((0.32, 1.2), (1.8, 2.6))).write(tmp_path / "film")
    with pytest.raises(AdaFlowError, match="several parts by its edit list; export"):
        probe(path)


@pytest.mark.parametrize("offsets", [(0, 0), (3600, 0), (0, 3600)])
def test_the_remedy_for_a_clock_that_jumps_helps(offsets: tuple[int, int], tmp_path: Path) -> None:
    parts = [Structure("ts", start=offset).write(tmp_path / f"{n}") for n, offset in enumerate(offsets)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(AdaFlowError, match="the clock of") as caught:
        probe(joined)
    arguments = str(caught.value).partition("ffmpeg ")[2].replace("INPUT", str(joined)).split()
    found = measure(ffmpeg(tmp_path / "whole.mp4", *arguments[:-1]))
    assert len(found.flashes) == 14 and abs(found.seconds - 6) < 0.1
    assert apart_most(found) < 0.04  # FFmpeg's own


def test_an_edit_keeps_flash_and_tone_together(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    times = tuple(np.cumsum([0, *np.tile([0.1, 0.16, 0.07], 4)]).round(3).tolist())
    film = Structure(times=times, end=2.0, b_frames=2, audio_range=(-0.2, 2.0), start=0.3)
    engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path / "cache"))
    plan = engine.plan(film.write(tmp_path / "film"), PlanConfig(keyframes=1, source_prompt="a ball"), size=(96, 64))
    result = engine.edit(plan, "a ball", EditConfig(steps=1))
    found = measure(result.save(tmp_path / "out.mp4"))
    assert film.flashes and not [fault for fault in differences(film, found) if "corners" not in fault]


def test_videos_of_random_structure_come_out_right(tmp_path: Path) -> None:
    figures = fuzz.structured(8, seed=0, folder=tmp_path)
    assert figures.cases == 8 and not figures.failures, figures.failures
    assert figures.read > 5


@pytest.mark.slow
@pytest.mark.skipif("ADAFLOW_FUZZ" not in os.environ, reason="300 videos take minutes; set ADAFLOW_FUZZ=300")
def test_many_videos_of_random_structure(tmp_path: Path) -> None:
    figures = fuzz.structured(int(os.environ["ADAFLOW_FUZZ"]), seed=1, folder=tmp_path)
    assert not figures.failures, figures.failures
