"""A project on the command line: what flags change of it, what they cannot, and what is looked at before the work."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaflow_core.cli.arguments import edit_config
from adaflow_core.cli.main import main
from adaflow_core.cli.opened import project_of
from adaflow_core.config import PRESETS, EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project, open_project
from adaflow_core.film.timeline import Timeline
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.video import from_frames, parse_range

PROMPT, OTHER = "a blue ball", "a pink ball"
WHOLE = ({"frames": [0, 4], "prompt": PROMPT},)
TAKE: dict[str, Any] = {"frames": [1, 3], "prompt": OTHER, "settings": {}}
Said = Callable[..., str]
Planned = Callable[..., tuple[Timeline, str]]


@pytest.fixture
def clip(drawn_clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(drawn_clip, tmp_path / "clip.mp4"))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return tmp_path / "film.json"


@pytest.fixture
def project(clip: Path, film: Path) -> Project:
    """Of the frames 0:4 under one prompt, saved as film.json."""
    asked = PlanConfig(keyframes=2), EditConfig(steps=1)
    saved = Project(clip, *asked, WHOLE, frames="0:4", size="64x64", crossfade=3)
    saved.save(film)
    return saved


def change(film: Path, **parts: Any) -> None:
    film.write_text(json.dumps(json.loads(film.read_text()) | parts))


@pytest.fixture
def said(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """What a command with the project says, which is stopped where its model would be loaded: "loaded"."""

    def load(*_: object) -> None:
        raise AdaFlowError("loaded")

    def attempt(command: str, *flags: str) -> str:
        capsys.readouterr()
        project = [str(film)] if command == "retake" else [f"--project={film}"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("adaflow_core.cli.editing.load", load)
            patch.setattr("adaflow_core.cli.planning.load", load)
            assert main([command, *project, f"--out={tmp_path / 'out.mp4'}", *flags]) == 2
        return capsys.readouterr().err.strip().removeprefix("adaflow: error: ")

    return attempt


@pytest.fixture
def planned(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Planned:
    """What an edit with the project is to show, and what it says, where the plan has the keyframes 0 and 2.

    The project as the edit would save it is saved.json.
    """
    seen: list[Timeline] = []

    def make_plan(arguments: argparse.Namespace, *_: object) -> tuple[None, SimpleNamespace]:
        video = from_frames(np.zeros((12, 64, 64, 3), np.uint8)[parse_range(arguments.frames)])
        return None, SimpleNamespace(video=video, segments=SimpleNamespace(keyframes=np.array([0, 2])))

    def draft(
        arguments: argparse.Namespace, opened: Project, engine: None, plan: Any, timeline: Timeline, *_: object
    ) -> None:
        seen.append(timeline)
        config = edit_config(arguments, opened)
        project_of(arguments, opened, plan, timeline, config).save(tmp_path / "saved.json")

    def run(*flags: str) -> tuple[Timeline, str]:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("adaflow_core.cli.editing.make_plan", make_plan)
            patch.setattr("adaflow_core.cli.editing._draft", draft)
            assert main(["edit", f"--project={film}", "--draft", f"--out={tmp_path / 'out.mp4'}", *flags]) == 0
        return seen[-1], capsys.readouterr().err

    return run


# --- the model --------------------------------------------------------------------------------------


def test_what_flags_change_of_a_project_is_saved_in_it(
    project: Project, planned: Planned, film: Path, tmp_path: Path
) -> None:
    planned("--lora=a.safetensors=0.5", "--vae=my vae", "--embedding=e.safetensors", "--frames=0:6")
    saved = open_project(tmp_path / "saved.json")
    parts = ModelParts("embedded", ("a.safetensors=0.5",), "my vae", ("e.safetensors",))
    assert ModelParts.parse(saved.model) == parts, "with what was added to it"
    assert (saved.frames, saved.prompts) == ("0:6", ({"frames": [0, 6], "prompt": PROMPT},))
    assert saved.crossfade == 3
    (tmp_path / "saved.json").replace(film)
    planned("--lora=a.safetensors=0.5", "--vae=my vae")
    assert open_project(tmp_path / "saved.json") == saved


@pytest.mark.thorough
def test_what_is_named_again_is_added_once(project: Project, film: Path, tmp_path: Path) -> None:
    parts = ModelParts("sd15", ("a.safetensors=0.5", "b.safetensors"), "vae", ("e.safetensors=word",))
    replace(project, model=str(parts)).save(film)

    def made_of(*flags: str) -> ModelParts:
        seen: list[ModelParts] = []

        def load(given: argparse.Namespace, *_: object) -> None:
            seen.append(ModelParts(given.model, tuple(given.lora), given.vae, tuple(given.embedding)))
            raise AdaFlowError("loaded")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("adaflow_core.cli.planning.load", load)
            assert main(["edit", f"--project={film}", f"--out={tmp_path / 'out.mp4'}", *flags]) == 2
        return seen[0]

    assert made_of() == made_of("--lora=a.safetensors=0.5", "--vae=vae", "--embedding=e.safetensors=word") == parts
    found = made_of("--lora=a.safetensors=0.9", "--lora=c.safetensors")
    assert found == replace(parts, loras=("a.safetensors=0.9", "b.safetensors", "c.safetensors"))
    assert made_of("--model=sd21", "--lora=a.safetensors") == ModelParts("sd21", ("a.safetensors",))


def test_a_retake_is_made_with_the_projects_model(project: Project, film: Path, said: Said) -> None:
    replace(project, model="sd15 --lora=a.safetensors").save(film)
    same: list[str]
    for same in ([], ["--lora=a.safetensors"], ["--model=sd15", "--lora=a.safetensors"]):
        assert said("retake", "--frames=0:2", *same) == "loaded"
    for other in ("--model=sd15", "--model=sd21", "--lora=a.safetensors=0.5", "--vae=v"):
        refused = said("retake", "--frames=0:2", other)
        assert "is of the model sd15 --lora=a.safetensors, not of" in refused and "edit --project" in refused


def test_a_model_that_lies_elsewhere_now_may_be_given_by_its_path(
    project: Project, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("models", "moved", "shell"):
        (tmp_path / folder).mkdir()
    (tmp_path / "models" / "toon").mkdir()
    replace(project, model="models/toon").save(film)
    same = [[], ["--model=models/toon"], [f"--model={tmp_path / 'models' / 'toon'}"]]
    assert {said("retake", "--frames=0:2", *flags) for flags in same} == {"loaded"}
    monkeypatch.chdir(tmp_path / "shell")
    assert said("retake", "--frames=0:2", "--model=../models/toon") == "loaded"
    (tmp_path / "models" / "toon").rename(tmp_path / "moved" / "toon")
    assert said("retake", "--frames=0:2", "--model=../moved/toon") == "loaded"
    assert "is of the model" in said("retake", "--frames=0:2", "--model=../moved")


# --- frames, crossfade, preset ----------------------------------------------------------------------


@pytest.mark.thorough
def test_with_other_frames_one_prompt_is_for_all_of_them(project: Project, planned: Planned) -> None:
    for frames, length in (("0:6", 6), ("5:", 7), ("-3:", 3)):
        assert planned(f"--frames={frames}")[0].as_json() == [{"frames": [0, length], "prompt": PROMPT}]


@pytest.mark.parametrize(
    ("parts", "flags", "says"),
    [
        ({"takes": [TAKE]}, [], "the takes .* of its frames 0:4, and --frames asks for 0:6; give --prompt too"),
        ({"prompts": [{"frames": [0, 2], "prompt": PROMPT}]}, [], "the ranges .* give --prompt too, or begin another"),
        ({"prompts": [*WHOLE, {"frames": [4, 5], "prompt": OTHER}]}, [], "the ranges .* give --prompt too"),
        ({"prompts": [WHOLE[0] | {"source_prompt": "a red ball"}]}, [], "the ranges .* give --prompt too"),
        ({"takes": [TAKE]}, [f"--prompt={OTHER}"], "^loaded$"),
        ({"takes": [TAKE]}, [f"--prompt={OTHER}", "--frames=0:2"], "the takes .* begin another project"),
        ({"takes": [TAKE]}, [f"--prompt={OTHER}", "--frames=1:6"], "the takes .* begin another project"),
        ({"takes": [TAKE]}, ["--frames=:4"], "^loaded$"),
    ],
)
def test_what_is_of_other_frames_is_not_taken_for_these(
    project: Project, film: Path, said: Said, parts: dict[str, Any], flags: list[str], says: str
) -> None:
    change(film, **parts)
    found = said("edit", "--frames=0:6", *flags)
    assert re.search(says, found), found


def test_masks_and_keyframes_by_hand_stay_with_their_frames(project: Project, film: Path, said: Said) -> None:
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    region, by_hand = Region({0: mask}).as_json(film.parent), ByHand({0: np.zeros((64, 64, 3), np.uint8)})
    change(film, region=region)
    assert said("edit", "--frames=0:6") == "loaded"
    assert "give them again, with --mask" in said("edit", "--frames=1:6")
    assert said("edit", "--frames=1:6", "--region=ball") == "loaded"
    change(film, region=None, by_hand=by_hand.as_json(film.parent))
    assert "give them again, with --keyframe-image" in said("edit", "--frames=1:6")


def test_other_keyframes_are_noted_where_the_plan_is_the_projects(
    project: Project, film: Path, planned: Planned
) -> None:
    change(film, keyframes=[0, 3])
    for same in ("--frames=:4", "--size=64x64", "--model=embedded", "--steps=3"):
        assert "other keyframes" in planned(same)[1]
    for other in ("--frames=0:3", "--size=128x128", "--keyframes=1", "--lora=a.safetensors", "--model=sd15"):
        assert "other keyframes" not in planned(other)[1]
    change(film, keyframes=[0, 2])
    assert "other keyframes" not in planned()[1]


def test_a_retake_notes_other_keyframes_before_the_film_is_made(
    project: Project, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Engine:
        def plan(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(video=range(4), segments=SimpleNamespace(keyframes=np.array([0, 2])))

        def replay(self, *_: object, **__: object) -> None:
            raise AdaFlowError("replayed")

    monkeypatch.setattr("adaflow_core.cli.editing.load", lambda *_: Engine())
    retake = ["retake", str(film), f"--out={tmp_path / 'out.mp4'}"]
    for keyframes, noted in (([0, 3], True), ([0, 2], False)):
        change(film, keyframes=keyframes)
        assert main([*retake, "--frames=0:2"]) == 2
        told = capsys.readouterr().err
        assert "replayed" in told and ("other keyframes" in told) == noted
    assert main([*retake, "--frames=9:11"]) == 2
    assert "holds no frame of the film" in capsys.readouterr().err, "which needs no film either"


def test_a_project_keeps_its_crossfade_under_another_prompt(project: Project, said: Said, planned: Planned) -> None:
    assert planned()[0].crossfade == planned(f"--prompt={OTHER}")[0].crossfade == 3
    assert planned(f"--prompt=0:2 {OTHER}", f"--prompt=2:4 {PROMPT}")[0].crossfade == 3
    assert planned(f"--prompt={OTHER}", "--crossfade=5")[0].crossfade == 5
    assert "crossfade is -1" in said("edit", f"--prompt={OTHER}", "--crossfade=-1"), "before the work"


def test_the_rate_of_a_folder_of_pictures_is_kept(
    pictures: Path, project: Project, film: Path, said: Said, planned: Planned, tmp_path: Path
) -> None:
    assert "clip.mp4 has its own rate; leave it out" in said("edit", "--fps=30")
    replace(project, video=pictures, frames="0:2").save(film)
    planned("--fps=30", f"--prompt={PROMPT}")
    assert open_project(tmp_path / "saved.json").fps == 30
    (tmp_path / "saved.json").replace(film)
    planned()
    assert open_project(tmp_path / "saved.json").fps == 30
    assert said("edit") == said("retake", "--frames=0:2") == "loaded"


def test_a_prompt_that_was_read_as_one_for_a_range_is_noted(project: Project, planned: Planned) -> None:
    found, told = planned("--prompt=1:3 train at dusk")
    assert found.as_json() == [{"frames": [1, 3], "prompt": "train at dusk"}]
    assert 'the range of all frames before it: "0:4 1:3 train at dusk"' in told
    found, told = planned("--prompt=0:4 1:3 train at dusk")
    assert found.as_json() == [{"frames": [0, 4], "prompt": "1:3 train at dusk"}] and "train" not in told


@pytest.mark.thorough
def test_the_preset_that_a_project_was_made_with_may_be_named_again(project: Project, film: Path, said: Said) -> None:
    fast = PRESETS["fast"][1]
    replace(project, edit=replace(fast, guidance=4.0)).save(film)
    assert said("edit", "--preset=fast") == said("edit", "--preset=fast", "--guidance=5") == "loaded"
    assert said("edit", "--preset=fast", "--steps=6", "--inversion-steps=6") == "loaded"
    refused = said("edit", "--preset=tokenflow")
    assert "a project has settings of its own" in refused and "method" in refused and "agreements" in refused
    replace(project, edit=replace(fast, steps=6, stride=4)).save(film)
    assert "those of --preset fast are others (stride)" in said("edit", "--preset=fast")


def test_two_retakes_of_one_project_both_stay_in_it(
    project: Project, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {**TAKE, "report": {"seconds": 1}}
    replace(project, takes=(kept,)).save(film)
    another, own = TAKE | {"frames": [3, 4]}, TAKE | {"frames": [0, 1]}

    class Engine:
        def plan(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(video=range(4), segments=SimpleNamespace(keyframes=np.array([0, 2])))

        def replay(self, *_: object, **__: object) -> None: ...

        def forecast_retake(self, *_: object) -> SimpleNamespace:
            return SimpleNamespace(total=1.0)

        def retake(self, *_: object, **__: object) -> SimpleNamespace:
            replace(project, takes=(kept, another)).save(film)  # by another command, meanwhile
            return SimpleNamespace(warnings=(), report={"takes": [{**TAKE, "report": {"seconds": 2}}, own]})

    monkeypatch.setattr("adaflow_core.cli.editing.load", lambda *_: Engine())
    monkeypatch.setattr("adaflow_core.cli.editing._deliver", lambda *_: (SimpleNamespace(path="out.mp4"), True))
    assert main(["retake", str(film), f"--out={tmp_path / 'out.mp4'}", "--frames=0:1"]) == 0
    assert open_project(film).takes == (kept, another, own)
    assert "another command added 1 take" in capsys.readouterr().err


# --- files ------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(project: Project, tmp_path: Path) -> Path:
    """A folder of two pictures, the first of which is a mask too."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    for name in ("0.png", "1.png"):
        Image.fromarray(mask).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--report={film}"], "--report and --project would both be written to"),
        (["--report={here}/pictures/../film.json"], "--report and --project would both be written to"),
        (["--report={here}/out.mp4"], "--out and --report would both be written to"),
        (["--report={here}/clip.mp4"], "is the source itself"),
        (["--mask={mask}", "--report={mask}"], "is the mask itself; choose another name"),
        (["--keyframe-image=0={mask}", "--report={mask}"], "is the keyframe by hand itself"),
        (["--mask={here}/pictures", "--report={here}/pictures/2.png"], "would be one of the pictures of the mask"),
        (["--prompts={here}/ranges.json", "--report={here}/ranges.json"], "is the prompts itself"),
        (["--settings={here}/old.json", "--report={here}/old.json"], "is the file of --settings itself"),
        (["--settings={here}/old.json", "--report={here}/pictures/../old.json"], "is the file of --settings itself"),
        (["--settings={film}", "--report={here}/report.json"], "^loaded$"),
        (["--draft", "--settings={here}/draft.json"], "draft.json .* is the file of --settings itself"),
        (["--lora={here}/old.json=0.5", "--report={here}/old.json"], "is a file of the model itself"),
        (["--vae={here}/old.json", "--report={here}/old.json"], "is a file of the model itself"),
        (["--embedding={here}/old.json", "--report={here}/old.json"], "is a file of the model itself"),
        (["--model={here}/model", "--report={here}/model/unet/config.json"], "is a file of the model itself"),
        (["--model={here}/model", "--report={here}/model/model_index.json"], "is a file of the model itself"),
        (["--model={here}/model", "--report={here}/model/report.json"], "^loaded$"),
        (["--draft", "--report={here}/draft.json"], "--report and draft.json would both be written to"),
        (["--draft", "--report={here}/report.json"], "a draft has none; leave it out"),
        (["--draft"], "draft.json is no draft of .*clip.mp4"),
        (["--draft", "--keyframe-image=0={here}/draft.png"], "draft.png .* is the keyframe by hand itself"),
        (["--report={here}/report.json", "--mask={mask}"], "^loaded$"),
    ],
)
def test_nothing_is_written_over_what_an_edit_reads_or_writes(
    pictures: Path, film: Path, tmp_path: Path, said: Said, flags: list[str], says: str
) -> None:
    (tmp_path / "ranges.json").write_text(json.dumps(WHOLE))
    for name in ("old.json", "draft.json"):
        (tmp_path / name).write_text('{"edit": {"steps": 1}}')
    for name in ("model_index.json", "unet/config.json"):
        (file := tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    shutil.copy(pictures / "0.png", tmp_path / "draft.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = said("edit", *(flag.format(here=tmp_path, film=film, mask=pictures / "0.png") for flag in flags))
    assert re.search(says, found), found
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.thorough
def test_a_draft_may_be_kept_in_the_file_that_it_writes(project: Project, tmp_path: Path, said: Said) -> None:
    draft = tmp_path / "draft.json"
    replace(project, takes=(TAKE,)).save(draft)
    assert said("edit", "--draft", f"--project={draft}") == "loaded"
    assert "holds 1 take, which a draft would replace" in said("edit", "--draft")
    project.save(draft)
    assert said("edit", "--draft") == "loaded", "over an earlier draft of the video"
    (other := tmp_path / "other.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes() + b"0")
    replace(project, video=other).save(draft)
    assert "is no draft of" in said("edit", "--draft")


def test_a_retake_looks_at_its_files_first(pictures: Path, film: Path, tmp_path: Path, said: Said) -> None:
    masks = tmp_path / "masks.mp4"
    shutil.copy(tmp_path / "clip.mp4", masks)
    change(film, region=Region(masks=masks).as_json(tmp_path))
    before = masks.read_bytes()
    assert "--out" in (found := said("retake", "--frames=0:2", f"--out={masks}")) and "is the mask itself" in found
    assert masks.read_bytes() == before and said("retake", "--frames=0:2") == "loaded"
    with pytest.MonkeyPatch.context() as patch:

        def touch(path: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        patch.setattr("pathlib.Path.touch", touch)
        patch.setattr("adaflow_core.video.write.check_output", lambda *_: None)
        assert "cannot write" in (found := said("retake", "--frames=0:2")) and "film.json" in found


def test_a_video_that_is_a_link_is_named_by_it(project: Project, tmp_path: Path) -> None:
    blobs, here = tmp_path / "blobs", tmp_path / "here"
    for folder in (blobs, here):
        folder.mkdir()
    (tmp_path / "clip.mp4").rename(blobs / "0a1b2c")
    (here / "ball.mp4").symlink_to(blobs / "0a1b2c")
    (tmp_path / "link").symlink_to(here)
    for video in (here / "ball.mp4", tmp_path / "link" / "ball.mp4"):
        replace(project, video=video).save(here / "film.json")
        assert json.loads((here / "film.json").read_text())["video"]["path"] == "ball.mp4"
        assert open_project(here / "film.json").video == here / "ball.mp4"


def test_what_else_lies_in_a_folder_of_pictures_does_not_make_it_another(
    pictures: Path, project: Project, tmp_path: Path
) -> None:
    inside = pictures / "film.json"
    replace(project, video=pictures).save(inside)
    for name in (".DS_Store", "._0.png", "Thumbs.db"):
        (pictures / name).write_bytes(b"left by a system")
    replace(open_project(inside), size=None).save(inside)
    assert open_project(inside).video == pictures
    shutil.copy(pictures / "0.png", pictures / "2.png")
    with pytest.raises(AdaFlowError, match="is not the video of the project"):
        open_project(inside)


# --- parts that are wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"region": {}}, "the region of the project lacks a part, or has a wrong one; take a whole one"),
        ({"region": []}, "the region of the project lacks a part"),
        ({"region": {"painted": [{"frame": 0}], "masks": None}}, "the region of the project lacks a part"),
        ({"region": {"painted": [], "masks": 5, "words": ""}}, "the region of the project lacks a part"),
        (
            {"region": {"painted": [], "masks": None, "words": "ball", "feather": "8"}},
            "feather is '8'; it must be a whole number",
        ),
        ({"by_hand": [{}]}, "what is by hand of the project lacks a part"),
        ({"by_hand": 5}, "what is by hand of the project lacks a part"),
        ({"by_hand": {}}, "no keyframe was given by hand"),
        ({"takes": [{"frames": [0, 2], "settings": {}}]}, "hold what is no take"),
        ({"takes": [TAKE | {"prompt": None}]}, "hold what is no take"),
        ({"prompts": [{"seconds": [0, 10**400], "prompt": PROMPT}]}, "ends after any video; let it end with its own"),
    ],
)
def test_a_wrong_part_of_a_project_is_told_in_a_sentence(
    project: Project, film: Path, said: Said, parts: dict[str, Any], says: str
) -> None:
    change(film, **parts)
    assert says in said("edit")


def test_a_prompts_range_may_not_be_endless(project: Project, said: Said) -> None:
    assert "ends after any video" in said("edit", f"--prompt=0:{'9' * 400} {PROMPT}")
