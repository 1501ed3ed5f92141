"""What was painted and given back belongs to frames: of others it counts as nothing, and a project's must fit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.video.decode import decode_video
from webui.events.common.over import asked_over, has_pictures, held, of_plan, opened_from, words_found_in
from webui.events.region import RegionEvents
from webui.jobs.tasks import Request
from webui.kept import Kept, OverState, RegionState, StoredPlan
from webui.studio import Studio

MASK = np.zeros((64, 64), bool)
MASK[10:30, 10:30] = True
PICTURE = np.full((64, 64, 3), 7, np.uint8)


def stored(clip: Path, size: int = 64, frames: slice | None = None) -> StoredPlan:
    video = decode_video(clip, size=(size, size), frames=frames)
    plan: Any = SimpleNamespace(video=video)
    return StoredPlan("id", Request(str(clip), PlanConfig(), frames=frames), plan)


def project(clip: Path, folder: Path, **rest: Any) -> Project:
    parts = {"region": Region({0: MASK, 3: MASK}, feather=5).as_json(folder), "by_hand": None} | rest
    return Project(clip, PlanConfig(), EditConfig(), (), **parts)


def test_what_was_painted_on_other_frames_is_refused(drawn_clip: Path) -> None:
    here, elsewhere = stored(drawn_clip), stored(drawn_clip, 96)
    over = OverState(video=here.plan.video.digest, region=RegionState({0: MASK}), pictures={1: PICTURE}, id="mine")
    region, by_hand = asked_over(here, over)
    assert region is not None and by_hand is not None
    assert list(region.painted) == [0] and list(by_hand.pictures) == [1]
    with pytest.raises(AdaFlowError, match="is of other frames, or of another size"):
        asked_over(elsewhere, over)
    assert asked_over(elsewhere, OverState(video="of others", id="mine")) == (None, None), "there is nothing"
    assert of_plan(elsewhere, over).id == "mine", "a browser finds it by the same id"
    assert asked_over(None, over) == asked_over(here, OverState()) == (None, None)


def test_what_gradio_forgot_is_found_by_the_id_that_the_browser_has(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path)
    over = studio.kept.keep_over(OverState(region=RegionState({0: MASK})))
    assert held(studio, OverState(), over.id) == held(studio, over, "") == over
    assert held(studio, OverState(), "") == OverState()
    studio.forget_older_than(0)
    with pytest.raises(AdaFlowError, match="not kept any more; reload it"):
        held(studio, OverState(), over.id)


def test_without_a_plan_there_is_nothing_to_find_words_in() -> None:
    studio: Any = SimpleNamespace(kept=Kept())
    with pytest.raises(gr.Error, match="preview the keyframes first"):
        asyncio.run(anext(RegionEvents(studio).find_words("", OverState(), "", "ball", 8)))


def test_a_projects_pictures_are_taken_up_by_the_next_plan(drawn_clip: Path, tmp_path: Path) -> None:
    given = ByHand({2: PICTURE}).as_json(tmp_path)
    over, said = opened_from(project(drawn_clip, tmp_path, by_hand=given))
    assert "frame 0, 3, 2" in said and has_pictures(over)
    known = of_plan(stored(drawn_clip), over)
    assert sorted(known.region.masks) == [0, 3] and known.region.feather == 5
    assert np.array_equal(known.region.masks[3], MASK)
    assert np.array_equal(known.pictures[2], PICTURE) and not known.opened and not known.shown
    region, by_hand = asked_over(stored(drawn_clip), over)
    assert region is not None and region.as_json() == Region({0: MASK, 3: MASK}, feather=5).as_json()
    assert by_hand is not None and by_hand.as_json() == ByHand({2: PICTURE}).as_json()


def test_words_come_back_and_files_are_not_looked_for(drawn_clip: Path, tmp_path: Path) -> None:
    over, said = opened_from(project(drawn_clip, tmp_path, region=Region(words="red ball").as_json(tmp_path)))
    region, _ = asked_over(stored(drawn_clip), over)
    assert region == Region(words="red ball") and "“red ball”" in said
    small = Region(words="red ball", crop="small").as_json(tmp_path)
    before = {name: value for name, value in small.items() if name != "crop"}
    for asked, crop in ((small, "small"), (before, "never")):  # whole frames were edited before there were crops
        over, _ = opened_from(project(drawn_clip, tmp_path, region=asked))
        region, _ = asked_over(stored(drawn_clip), over)
        assert region == Region(words="red ball", crop=crop)
    over, _ = opened_from(project(drawn_clip, tmp_path, region=small | {"crop": ["all"]}))
    with pytest.raises(AdaFlowError, match=r"has the crop \['all'\]"):
        of_plan(stored(drawn_clip), over)
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"not for strangers")
    row = {"frame": 0, "file": str(secret), "checksum": ""}
    for part in ({"painted": [row], "masks": None}, {"painted": [], "masks": row}):
        over, said = opened_from(project(drawn_clip, tmp_path, region=part | {"words": "", "feather": 8}))
        assert over.is_empty and "lie in files beside it" in said
    assert opened_from(project(drawn_clip, tmp_path, region=None)) == (OverState(), "")


def test_a_range_may_be_written_in_several_ways(drawn_clip: Path, tmp_path: Path) -> None:
    for written in (":6", "0:6", " 0 : 6"):
        over, _ = opened_from(replace(project(drawn_clip, tmp_path), frames=written))
        assert sorted(of_plan(stored(drawn_clip, frames=slice(None, 6)), over).region.masks) == [0, 3]


def test_a_region_of_words_is_of_a_source_prompt_and_a_model(drawn_clip: Path) -> None:
    """Those that are shown are found anew after a plan with others; what is painted needs neither."""
    plan = stored(drawn_clip)
    found: Any = plan.plan
    found.config, found.model = PlanConfig(source_prompt="a red ball"), "embedded"
    assert words_found_in(plan, RegionState(words="ball")) == ("a red ball", "embedded")
    assert words_found_in(plan, RegionState({0: MASK}, words="ball")) is None
    assert words_found_in(plan, RegionState()) is None


def test_what_does_not_fit_is_refused(drawn_clip: Path, tmp_path: Path) -> None:
    over, _ = opened_from(project(drawn_clip, tmp_path))
    with pytest.raises(AdaFlowError, match="take the working size of the project"):
        of_plan(stored(drawn_clip, 96), over)
    with pytest.raises(AdaFlowError, match="another range of frames"):
        of_plan(stored(drawn_clip, frames=slice(0, 6)), over)
    late, _ = opened_from(project(drawn_clip, tmp_path, region=Region({40: MASK}).as_json(tmp_path)))
    with pytest.raises(AdaFlowError, match="for no frame of this video"):
        of_plan(stored(drawn_clip), late)
    rows = [{"frame": 0} | Region({0: MASK}).as_json(tmp_path)["painted"][0]]
    swapped, _ = opened_from(project(drawn_clip, tmp_path, by_hand=rows))
    with pytest.raises(AdaFlowError, match="picture of another kind"):
        of_plan(stored(drawn_clip), swapped)
    without = Region({0: MASK}).as_json(tmp_path)
    del without["feather"]
    unreadable = {"painted": [{"frame": "x"}], "masks": None, "words": "", "feather": 1}
    for wrong in ("text", {"painted": 3}, unreadable, without):
        with pytest.raises(AdaFlowError, match="wrong part"):
            opened_from(project(drawn_clip, tmp_path, region=wrong))
