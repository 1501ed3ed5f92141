"""Rims at the edges of what an edit changed, on true edits of the drawn world and with rims planted in them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from adaflow_core.progress import Monitor
from adaflow_core.report.canvas import PLACE
from adaflow_core.report.edges import edges, rim_picture
from adaflow_core.report.scores import RIMS
from benchmarks.truth import Pair, draw
from scenes.world import sample

EDITS = [
    ("object", "rocket", {"kind": "balloon", "colour": "orange", "background": "ocean"}),
    ("colour", "pink", {"kind": "duck", "colour": "yellow", "background": "ocean"}),
    ("background", "night", {"kind": "car", "colour": "red", "background": "meadow"}),
]


def drawn(kind: str, value: str, scene: dict[str, str]) -> Pair:
    row = sample(1, seed=11, split="test").replace(style="photo", occluder="none", present2=False, **scene)
    return draw(row, kind, value, np.linspace(0.2, 0.6, 3))


def ringed(pair: Pair, frame: int) -> np.ndarray:
    """The true edit with one pixel of the source along the edge of what changes in a frame."""
    edit, region = pair.truth.copy(), pair.region[frame].astype(np.uint8)
    window = np.ones((3, 3), np.uint8)
    ring = (cv2.dilate(region, window) > 0) & (cv2.erode(region, window) == 0)
    edit[frame][ring] = pair.source[frame][ring]
    return edit


@pytest.mark.parametrize(("kind", "value", "scene"), EDITS)
def test_a_true_edit_has_none_and_a_pixel_of_the_source_along_the_edge_is_one(
    kind: str, value: str, scene: dict[str, str]
) -> None:
    pair = drawn(kind, value, scene)
    clean = edges(pair.truth, pair.source, monitor=Monitor())
    assert clean is not None and clean.rims < 0.1 and clean.error < 10
    found = edges(ringed(pair, 1)[1:2], pair.source[1:2], monitor=Monitor())
    assert found is not None and found.rims > RIMS and found.error > 2.5 * clean.error
    assert edges(ringed(pair, 2), pair.source, monitor=Monitor()).worst == 2  # type: ignore[union-attr]
    assert edges(ringed(pair, 2), pair.source, [0, 1], monitor=Monitor()).worst != 2  # type: ignore[union-attr]


def test_a_change_without_an_edge_has_no_rims() -> None:
    pair = drawn(*EDITS[0])
    assert edges(255 - pair.source, pair.source, monitor=Monitor()) is None, "all over the frame"
    assert edges(pair.source, pair.source, monitor=Monitor()) is None, "nowhere"
    assert edges(pair.truth, pair.source, [], monitor=Monitor()) is None


def test_rims_are_outlined() -> None:
    pair = drawn(*EDITS[1])
    outlined, clean = (
        (rim_picture(frames[1], pair.source[1]) == PLACE).all(axis=-1).sum() for frames in (ringed(pair, 1), pair.truth)
    )
    assert outlined > 4 * clean and outlined > 300
