"""A mask that is painted once follows its thing: through motion, behind others, out of sight and over a cut."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from threading import Barrier, active_count

import numpy as np
import pytest
import torch

from adaflow_core.editing.place.cutout import cleaned, guided, iou
from adaflow_core.errors import Stopped
from adaflow_core.motion.flow import flow_between
from adaflow_core.picture.region.carry import Source, carry
from adaflow_core.picture.region.ways import go
from adaflow_core.progress import Monitor, Progress, in_threads
from scenes.render import render
from scenes.world import sample


def drawn(motion: str, frames: int = 12, seed: int = 4) -> tuple[Source, np.ndarray, np.ndarray]:
    """A clip of 96x96, where its thing is [T, H, W], and its cuts."""
    row = sample(1, seed=seed, split="val", motion=motion).replace(present2=False)
    row = row.replace(kind="balloon", colour="red", background="meadow", style="photo")
    times = torch.linspace(0, 1, frames)
    picture = render(row, times, size=96)
    pixels = (picture.rgb[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    cuts = np.flatnonzero(times.numpy() >= row.cut_time.numpy())[:1]
    flow = np.stack([flow_between(a, b) for a, b in pairwise(pixels)])
    return Source(pixels, flow), (picture.ids[0] == 1).numpy(), cuts


def carried(source: Source, cuts: np.ndarray, painted: dict[int, np.ndarray]) -> np.ndarray:
    """Its masks; the progress comes to its end, and no further."""
    told: list[Progress] = []
    with Monitor(told.append).stage("carry", 2 * len(source.frames)) as stage:
        found = carry(source, cuts, painted, stage) > 127
    assert max(progress.done for progress in told) == told[-1].done == told[-1].total
    return found


@pytest.mark.parametrize(("motion", "least"), [("drift", 0.9), ("turn", 0.9), ("occlusion", 0.75), ("leave", 0.75)])
def test_a_mask_follows_its_thing(motion: str, least: float) -> None:
    source, truth, cuts = drawn(motion)
    best = int(truth.sum(axis=(1, 2)).argmax())
    found = carried(source, cuts, {best: truth[best]})
    assert (found[best] == truth[best]).all()
    assert np.mean([iou(*pair) for pair in zip(found, truth, strict=True)]) > least


def test_shots_and_ways_are_gone_in_threads_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    source, truth, _ = drawn("drift")
    cuts, painted = np.array([5, 9]), {1: truth[1], 4: truth[4], 7: truth[7]}
    alone = carried(source, cuts, painted)
    monkeypatch.setattr("adaflow_core.progress.THREADS", 4)
    monkeypatch.setattr("adaflow_core.picture.region.ways.in_threads", partial(in_threads, threads=4))
    np.testing.assert_array_equal(carried(source, cuts, painted), alone)
    most: list[int] = []
    with Monitor(lambda _: most.append(active_count())).stage("carry", 24) as stage:
        carry(source, cuts, painted, stage)
    assert max(most) > most[0] + 1, "at a time"
    told: list[Progress] = []
    stopped = Monitor(told.append, lambda: bool(told) and told[-1].done > 8)
    with pytest.raises(Stopped), stopped.stage("carry", 24) as stage:
        carry(source, cuts, painted, stage)
    assert stage.done < stage.total, "threads end with the frame at hand"


def test_what_was_painted_stays_however_small() -> None:
    """Of a thing that is painted near and far, the far one was below what counts as an error of the near one."""
    source, truth, cuts = drawn("drift")
    far = np.zeros_like(truth[0])
    far[40:42, 40:44] = True
    found = carried(source, cuts, {0: np.ones_like(far), 4: far})
    assert (found[4] == far).all()


def test_a_mask_crosses_a_cut_only_to_what_has_its_colours() -> None:
    source, truth, cuts = drawn("cut")
    assert len(cuts)
    found = carried(source, cuts, {2: truth[2]})
    assert np.mean([iou(*pair) for pair in zip(found, truth, strict=True)]) > 0.75
    # A patch of the ground looks like all of the ground: it is not looked for in the other shot.
    patch = np.zeros_like(truth[0])
    patch[78:90, 4:40] = True
    found = carried(source, cuts, {2: patch & ~truth[2]})
    assert found[: cuts[0]].any(axis=(1, 2)).all() and not found[cuts[0] :].any()


def test_half_of_a_thing_stays_half_and_a_further_painted_frame_corrects() -> None:
    source, truth, cuts = drawn("still")
    half = truth.copy()
    half[:, :, int(np.nonzero(truth[0])[1].mean()) :] = False
    found = carried(source, cuts, {0: half[0]})
    assert np.mean([iou(*pair) for pair in zip(found, half, strict=True)]) > 0.8
    found = carried(source, cuts, {0: half[0], 11: truth[11]})
    assert (found[0] == half[0]).all() and (found[11] == truth[11]).all()
    assert iou(found[1], half[1]) > 0.8 and iou(found[9], truth[9]) > 0.8


def test_edges_are_those_of_the_frame() -> None:
    frame = np.full((24, 24, 3), 40, np.uint8)
    frame[:, 12:] = 200
    mask = np.zeros((24, 24), np.float32)
    mask[:, 11:] = 1  # a pixel off
    found = guided(frame, mask, radius=40) > 0.5
    assert not found[4:-4, :12].any() and found[4:-4, 12:].all()


def test_small_pieces_and_holes_are_errors() -> None:
    inside = np.zeros((20, 20), bool)
    inside[4:14, 4:14] = True
    spotted = inside.copy()
    spotted[8, 8], spotted[18, 18] = False, True
    assert (cleaned(spotted, 4) == inside).all()
    assert (cleaned(spotted, 1) == spotted).all()


def test_the_first_failure_ends_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is what is raised, though ways before it end by it, too."""
    monkeypatch.setattr("adaflow_core.progress.THREADS", 2)
    monkeypatch.setattr("adaflow_core.picture.region.ways.in_threads", partial(in_threads, threads=2))
    begun, steps = Barrier(2), list[int]()

    def work(way: int, advance: Callable[[int], None]) -> None:
        begun.wait(10)
        if way == 1:
            raise ValueError("a frame is damaged")
        for step in range(10_000):
            steps.append(step)
            time.sleep(0.001)
            advance(1)

    with Monitor().stage("carry", 10_000) as stage, pytest.raises(ValueError, match="damaged"):
        go(work, [0, 1], stage)
    assert len(steps) < 5_000
