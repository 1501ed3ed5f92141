"""Two processes that edit one film: the same film as one, and what happens when one of them ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.cli.arguments import parser
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model import loading
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.loading import load_backbone
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.progress import Monitor, Progress, beside
from adaflow_core.several import engine as several
from adaflow_core.several.engine import TeamEngine
from adaflow_core.storage.cache import Cache
from adaflow_core.team.cache import SharedCache
from adaflow_core.team.processes import Processes, Server
from adaflow_core.team.team import Team
from adaflow_core.types import EditResult, Plan
from webui.studio import Studio

CLIP = sorted((Path(__file__).resolve().parents[2] / "assets/clips").glob("*.mp4"))[0]
FRAMES, SIZE = slice(0, 13), (96, 64)
PLAN = PlanConfig(source_prompt="a red ball on the grass", keyframes=5)
EDIT = EditConfig(steps=3, inversion_steps=3, agreements=2, smoothing=0.8, detail=0.6)
PROMPT = "a blue ball on the grass"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Results depend in their last bits on the number of threads: the processes of a team of two have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamEngine]:
    os.environ["OMP_NUM_THREADS"] = "1"  # as the processes begin with
    load = partial(load_backbone, "embedded", device="cpu", dtype="float32")
    engine = TeamEngine(load, 2, Cache(tmp_path_factory.mktemp("team")))
    yield engine
    engine.processes.close()
    del os.environ["OMP_NUM_THREADS"]


def one(folder: Path) -> AdaFlow:
    return AdaFlow.from_pretrained("embedded", device="cpu", dtype="float32", cache=Cache(folder))


def planned(engine: AdaFlow) -> Plan:
    return engine.plan(CLIP, PLAN, frames=FRAMES, size=SIZE)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """The same frames, but for a grey level: some processors multiply small matrices in an order that the rows decide.

    Seen with Intel's matrix library on AVX-512 with fewer than eight rows; on others the bytes are the same.
    """
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_film_of_two_processes_is_that_of_one(team: TeamEngine, tmp_path: Path) -> None:
    def run(engine: AdaFlow) -> tuple[Plan, EditResult, EditResult, EditResult]:
        plan = planned(engine)
        result = engine.edit(plan, PROMPT, EDIT)
        painted = np.array(plan.video.frames[4])
        painted[20:40, 30:60] = 255, 200, 0
        by_hand = engine.edit(plan, PROMPT, EDIT, by_hand=ByHand({4: painted}))
        return plan, result, engine.retake(plan, result, (4, 9), "a green ball on the grass", EDIT), by_hand

    plan, edited, retaken, by_hand = run(one(tmp_path))
    again, together, also_retaken, also_by_hand = run(team)
    np.testing.assert_array_equal(again.features.tokens, plan.features.tokens)
    assert again.layout.keyframes.tolist() == plan.layout.keyframes.tolist()
    for found, expected in ((together, edited), (also_retaken, retaken), (also_by_hand, by_hand)):
        assert_alike(found.frames, expected.frames)
    for other in (retaken, by_hand):
        assert np.abs(other.frames.astype(int) - edited.frames).max() > 20
    assert together.report["inversion_reused"] is False
    assert not list(team.processes._started.folder.glob("*.npy"))  # type: ignore[union-attr]  # a server runs for weeks


@pytest.mark.thorough
def test_what_an_edit_shares_goes_when_it_is_done_with(
    tiny_backbone: Callable[[str], Backbone], tmp_path: Path
) -> None:
    """Each agreement and each stretch left a file of a film's size until the call ended."""
    shared = tmp_path / "team"
    shared.mkdir()
    engine = AdaFlow(replace(tiny_backbone("sd1"), team=Team(0, 1, shared)), Cache(tmp_path / "cache"))
    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    plan = engine.plan(frames, PlanConfig(keyframes=2))
    of_plan, config = set(shared.iterdir()), EditConfig(steps=4, inversion_steps=4, agreements=3, smoothing=0.8)
    result = engine.edit(plan, "a ball", config)
    (of_result,) = set(shared.iterdir()) - of_plan
    np.testing.assert_array_equal(np.load(of_result), result.frames)
    timeline = Timeline((PromptRange(0, 3, "a ball"), PromptRange(3, 6, "a cube")))
    engine.edit_timeline(plan, timeline, replace(config, steps=2, stride=2))
    assert set(shared.iterdir()) == of_plan | {of_result}


@pytest.mark.thorough
def test_two_processes_cut_out_what_stays_as_one_does(team: TeamEngine, tmp_path: Path) -> None:
    found = []
    for engine in (one(tmp_path), team):
        plan = engine.plan(CLIP, replace(PLAN, keyframes=2), frames=slice(0, 5), size=(192, 128))
        place = engine.place(plan, "a red ball on the ocean", config=EditConfig(focus=1.0, stride=1))
        assert place.mask is not None and place.surroundings
        found.append(place.mask)
    np.testing.assert_allclose(found[1], found[0], atol=0.02)
    kept = (found[0] < 0.5).mean(axis=(1, 2))
    assert (kept > 0.02).all() and (kept < 0.5).all()


@pytest.mark.thorough
def test_two_processes_edit_the_crop_of_a_region_as_one_does(team: TeamEngine, tmp_path: Path) -> None:
    inside = np.zeros((5, 192, 256), bool)
    inside[:, 80:100, 110:130] = True
    region, config = Region(masks=inside, feather=4, crop="small"), EditConfig(steps=1, inversion_steps=1)
    edits = []
    for engine in (one(tmp_path), team):
        plan = engine.plan(CLIP, replace(PLAN, keyframes=2), frames=slice(0, 5), size=(256, 192))
        edited = engine.edit(plan, PROMPT, config, region=region)
        draft = engine.draft(plan, PROMPT, config, region=region)
        assert draft.report["crop"] == edited.report["crop"] == {"width": 128, "height": 128, "share": 0.3333}
        outside = engine.region(plan, region).weights == 0
        assert (edited.frames[outside] == plan.video.frames[outside]).all()
        edits.append((edited.frames, draft.frames))
    for found, expected in zip(edits[1], edits[0], strict=True):
        assert_alike(found, expected)


def test_what_is_refused_leaves_the_processes_running(team: TeamEngine) -> None:
    plan = planned(team)
    before = [process.pid for process in team.processes._started.processes]  # type: ignore[union-attr]
    with pytest.raises(AdaFlowError, match="the prompt is empty"):
        team.edit(plan, " ", EDIT)
    with pytest.raises(AdaFlowError, match=r"test_team\.py"):
        team.plan(Path(__file__))
    left = team.processes._started.folder.iterdir()  # type: ignore[union-attr]
    assert not [path for path in left if path.is_dir() or path.suffix == ".npy"]
    team.edit(plan, PROMPT, EDIT)
    assert [process.pid for process in team.processes._started.processes] == before  # type: ignore[union-attr]


@pytest.mark.thorough
def test_a_process_that_dies_ends_the_edit_and_the_next_resumes(team: TeamEngine) -> None:
    plan, config = planned(team), EditConfig(steps=10, inversion_steps=10, seed=7)

    def kill(progress: Progress) -> None:
        if progress.stage == "edit" and progress.done > progress.total // 2:
            os.kill(team.processes._started.processes[1].pid, signal.SIGKILL)  # type: ignore[union-attr]

    with pytest.raises(AdaFlowError, match=r"process 2 of the 2 .* was killed by signal 9"):
        team.edit(plan, PROMPT, config, progress=kill)
    reports: list[Progress] = []
    result = team.edit(plan, PROMPT, config, progress=reports.append)
    assert {"edit", "decode frames"} <= {progress.stage for progress in reports}
    assert result.report["inversion_reused"] and result.report["resumed_at_step"] > 0


@pytest.mark.thorough
def test_a_stop_is_seen_and_the_next_edit_works(team: TeamEngine) -> None:
    plan, stopping = planned(team), threading.Event()
    began = time.monotonic()
    with pytest.raises(Stopped):
        team.edit(plan, PROMPT, EditConfig(seed=8), progress=lambda _: stopping.set(), stop=stopping.is_set)
    assert time.monotonic() - began < 60
    assert team.edit(plan, PROMPT, EDIT).frames.shape == (13, SIZE[1], SIZE[0], 3)


def test_all_that_an_engine_does_is_asked_of_the_processes() -> None:
    methods = {name for name, value in vars(AdaFlow).items() if callable(value) and not name.startswith("_")}
    assert {name for name in methods if name not in vars(TeamEngine)} == set()


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_the_command_line_says_what_is_no_number_of_gpus(number: str) -> None:
    with pytest.raises(AdaFlowError, match=f"{number!r} is no number of GPUs"):
        parser().parse_args(["edit", str(CLIP), "--prompt", PROMPT, f"--gpus={number}"])


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16", "float32"])
def test_a_team_fetches_the_precision_that_its_processes_load(
    dtype: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(name: str, *, half: bool, monitor: Monitor | None) -> Path:
        fetched.append(half)
        raise AdaFlowError("that was to be seen")

    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: native)
    for module in (loading, several):
        monkeypatch.setattr(module, "model_folder", fetch)
    for load in (load_backbone, TeamEngine.of):
        with pytest.raises(AdaFlowError, match="that was to be seen"):
            load("sd15", device="cpu", dtype=dtype)
    assert fetched[0] == fetched[1]


def test_a_leader_that_would_wait_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    team = Team(0, 2)
    monkeypatch.setattr("torch.distributed.broadcast_object_list", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="let all of them do it"):
        team.lead(team.wait)


def _exchanges(team: Team) -> Server:
    """A server of which a thread builds an entry with the others while the leader works alone, and then exchanges."""

    def answer(name: str, args: Any, kwargs: Any, report: object, stop: object) -> list[int]:
        cache = SharedCache(args[0], team=team)
        aside = cache.beside

        def build(folder: Path) -> dict[str, int]:
            out = aside.array(folder / "part.npy", np.int64, (8,))
            out[aside.own(8)] = 1 + team.rank
            return {}

        def build_beside(_monitor: Monitor) -> None:
            for number in range(30):
                aside.get("beside", str(number), build, together=True)

        total = 0
        with beside(Monitor(), build_beside):
            for number in range(30):
                total += team.lead(lambda number=number: time.sleep(0.002) or number)  # type: ignore[misc]
                total += int(team.gather(torch.tensor([team.rank]), 2).sum())
        folder, _, reused = cache.get("beside", "29", build)
        return [total, int(reused), *np.load(folder / "part.npy").tolist()]

    return answer


@pytest.mark.thorough
def test_what_threads_exchange_beside_does_not_get_between(tmp_path: Path) -> None:
    processes = Processes(_exchanges, 2)
    try:
        found = processes.call("", (tmp_path,), {}, None, None)
    finally:
        processes.close()
    assert found == [sum(range(30)) + 30, 1, 1, 1, 1, 1, 2, 2, 2, 2]


def test_a_prompt_is_not_checked_while_the_team_is_at_work(tmp_path: Path) -> None:
    engine = TeamEngine(partial(load_backbone, "embedded", device="cpu"), 2, Cache(tmp_path))
    studio = Studio("embedded", "cpu", tmp_path)
    studio.engines._loaded["embedded"] = engine, None
    assert not engine.busy
    with engine.processes._turn:  # as an edit holds it
        assert engine.busy and studio.prompt_problems("a red zeppelin") == []


@pytest.mark.parametrize("device", ["cuda:1", "mps:0"])
def test_one_gpu_by_its_number_is_not_several(device: str) -> None:
    with pytest.raises(AdaFlowError, match=f"{device!r} is one GPU and 2 are asked for; give --device {device[:-2]}"):
        TeamEngine.of("embedded", 2, device=device)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 4])
def test_parts_cover_everything_once(size: int, rows: int) -> None:
    for count in (0, 1, 5, 16, 17):
        parts = [Team(rank, size).own(count, rows) for rank in range(size)]
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
        assert all((part.stop - part.start) % rows == 0 or part.stop == count for part in parts)
        lengths = [part.stop - part.start for part in parts]
        assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) < 2 * rows
