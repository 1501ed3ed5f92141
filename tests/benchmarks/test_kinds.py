"""The tables of edits by kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache
from benchmarks.quality import kinds
from benchmarks.quality.report.kinds import BOUND, DIGITS, SOURCE, by_kind, paired


def row(clip: int, kind: str, name: str, **figures: float) -> dict[str, Any]:
    given = dict.fromkeys(DIGITS, 10.0) | {"nearest": float("nan"), "seen": 1.0} | figures
    return {"clip": clip, "kind": kind, "name": name, "prompt": "a ball"} | given


def clip(number: int, kind: str, own: float, other: float) -> list[dict[str, Any]]:
    """Two ways, whose flicker is `own` and `other` times the bound's."""
    outside = float("nan") if kind == "style" else 30.0
    return [
        row(number, kind, SOURCE, outside=outside),
        row(number, kind, BOUND, temporal=2.0, long_range=4.0, outside=outside),
        row(number, kind, "default", temporal=2 * own, long_range=4 * own, psnr=21.0, outside=outside),
        row(number, kind, "other", temporal=2 * other, long_range=4 * other, psnr=20.0, outside=outside, seen=0.5),
    ]


ROWS = clip(0, "colour", 1.0, 2.0) + clip(1, "colour", 3.0, 4.0) + clip(3, "style", 2.0, 6.0)


def cells(text: str, *begin: str) -> list[str]:
    """The row of a table whose first cells are these."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (found,) = (row for row in rows if row[: len(begin)] == [*begin])
    return found[len(begin) :]


def test_means_by_kind_and_intervals_over_all() -> None:
    text = by_kind(ROWS).markdown()
    head = cells(text, "kind", "what")
    assert "nearest" not in head and "seconds" not in head and "outside" in head and BOUND not in text
    colour = dict(zip(head, cells(text, "colour", "`default`"), strict=True))
    expected = {"psnr": "21.0", "temporal": "2.00", "long-range": "2.00", "seen": "100 %"}
    assert expected.items() <= colour.items()
    everything = dict(zip(head, cells(text, "all", "`other`"), strict=True))
    assert everything["seen"] == "50 ± 0 %" and everything["temporal"] == "4.00 ± 4.97"  # of 2, 4 and 6
    assert cells(text, "style", "`default`")[head.index("outside")] == ""
    assert cells(text, "style", "the source itself") and "object" not in text


def test_ways_are_compared_clip_by_clip() -> None:
    text = paired(ROWS, "default").markdown()
    found = dict(zip(cells(text, "default minus"), cells(text, "`other`"), strict=True))
    assert found["psnr"] == "+1.00 ± 0.00" and found["seen"] == "+50 ± 0"
    assert found["temporal"].startswith("-2.00 ± ") and found["temporal, times"] == "0.50"
    assert found["long-range, times: colour, style"] == "0.67, 0.33"
    assert SOURCE not in text and text.count("`default`") == 0


@pytest.mark.parametrize("lost", ["other", "default"])
def test_a_way_that_not_all_clips_have_is_in_no_mean_of_all(lost: str) -> None:
    some = [each for each in ROWS if (each["name"], each["clip"]) != (lost, 3)]
    text = by_kind(some).markdown()
    assert f"| all | `{lost}`" not in text and f"| colour | `{lost}`" in text


def test_rows_are_written_where_no_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
    monkeypatch.setattr(kinds, "run_clip", lambda number, _: clip(number, "style", 1.0, 2.0))
    path = tmp_path / "new" / "kinds.json"
    kinds.main(["--clips", "2", "--json", str(path)])
    rows = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [row["clip"] for row in rows] == 4 * [0] + 4 * [1] and rows[0]["outside"] is None


def test_an_edit_takes_the_true_place(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    """Of the frames that the model edits, which are some of the clip's, each has its own: the last ones change."""
    engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path))
    pair = kinds.make_pair(0, 8, "val", "cpu", size=64)
    given = "true place: keyframes=2,steps=2,inversion_steps=2,stride=4,agreements=0,smoothing=0"
    ((_, plan_config, config),) = kinds.ways_of(given)
    plan = engine.plan(pair.source, replace(plan_config, source_prompt=pair.source_prompt), edit=config)
    late = np.zeros_like(pair.region)
    late[4:] = True
    with kinds.true_place(engine, replace(pair, region=late)):
        result = engine.edit(plan, pair.prompt, config)
    edited = np.array(result.report["edited"])
    change = np.abs(result.frames[edited].astype(int) - pair.source[edited]).mean(axis=(1, 2, 3))
    assert 2 < len(edited) < 8 and not change[edited < 4].any() and (change[edited >= 4] > 10).all()
