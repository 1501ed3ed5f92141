"""The plan and the film of a project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaflow_core.engine.facade import AdaFlow
from adaflow_core.film.project import Project
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.progress import Report, Stop
from adaflow_core.types import EditResult, Plan
from adaflow_core.video import parse_range, parse_size


def region_of(project: Project) -> Region | None:
    """Where the project's film is edited; None: everywhere. AdaFlowError where a file of it is gone."""
    return None if project.region is None else Region.from_json(project.region, project.folder)


def by_hand_of(project: Project) -> ByHand | None:
    """The project's keyframes by hand. AdaFlowError where a file of them is gone."""
    return None if project.by_hand is None else ByHand.from_json(project.by_hand, project.folder)


def with_over(project: Project, region: Region | None, by_hand: ByHand | None, folder: Path) -> Project:
    """The project with what is asked for over the picture, to be saved in `folder`."""
    return replace(
        project,
        region=None if region is None else region.as_json(folder),
        by_hand=None if by_hand is None else by_hand.as_json(folder),
        folder=folder,
    )


def plan_of(engine: AdaFlow, project: Project, *, progress: Report | None = None, stop: Stop | None = None) -> Plan:
    """The project's video, planned as the project says. Raises as `AdaFlow.plan`."""
    return engine.plan(
        project.video,
        project.plan,
        size=None if project.size is None else parse_size(project.size),
        frames=None if project.frames is None else parse_range(project.frames),
        fps=project.fps or 24,
        progress=progress,
        stop=stop,
    )


def film_of(
    engine: AdaFlow, project: Project, plan: Plan, *, progress: Report | None = None, stop: Stop | None = None
) -> EditResult:
    """The project's film, its takes included; `plan` as `plan_of` gives it. Raises as `AdaFlow.replay`."""
    return engine.replay(
        plan,
        project.timeline,
        project.edit,
        project.takes,
        region=region_of(project),
        by_hand=by_hand_of(project),
        progress=progress,
        stop=stop,
    )
