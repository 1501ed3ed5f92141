"""The plan and the film of a project, from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.engine.projects import by_hand_of, film_of, plan_of, region_of, with_over
from adaflow_core.film.project import Project, open_project
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.storage.cache import Cache


def test_a_project_is_the_film_that_was_saved_in_it(
    tiny_backbone: Callable[[str], Backbone], drawn_clip: Path, tmp_path: Path
) -> None:
    """Its size, its frames, its crossfade, its takes and what lies over the picture."""
    backbone = tiny_backbone("sd1")
    engine, elsewhere = (AdaFlow(backbone, Cache(tmp_path / name)) for name in ("here", "elsewhere"))
    asked, config = PlanConfig(keyframes=2, source_prompt="a red ball"), EditConfig(steps=2, inversion_steps=2)
    plan = engine.plan(drawn_clip, asked, size=(64, 64), frames=slice(2, 8))
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    given = np.array(plan.video.frames[1])
    given[20:30, 20:30] = 255 - given[20:30, 20:30]
    over = Region({0: mask}, feather=0), ByHand({1: given})
    timeline = Timeline((PromptRange(0, 3, "a blue ball"), PromptRange(3, 6, "a cube")), 1)
    film = engine.edit_timeline(plan, timeline, config, region=over[0], by_hand=over[1])
    take = engine.retake(plan, film, (3, 6), "a duck", config, region=over[0], by_hand=over[1])

    path = tmp_path / "work" / "film.json"
    project = Project(
        drawn_clip, asked, config, tuple(timeline.as_json()), size="64x64", frames="2:8", crossfade=1,
        takes=tuple(take.report["takes"]),
    )  # fmt: skip
    with_over(project, *over, path.parent).save(path)
    opened = open_project(path)
    assert region_of(opened) is not None and by_hand_of(opened) is not None
    planned = plan_of(elsewhere, opened)
    assert (planned.video.size, len(planned.video)) == ((64, 64), 6)
    again = film_of(elsewhere, opened, planned)
    assert again.report["frames_digest"] == take.report["frames_digest"]
