"""A project opened elsewhere gives the same film; one that cannot be used is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.config.saved import JSON_BYTES
from adaflow_core.engine.projects import with_over
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project, open_project, takes_added
from adaflow_core.film.timeline import PromptRange
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.hub.client import is_file_id
from adaflow_core.model.loading import model_folder
from adaflow_core.picture.region import Region
from adaflow_core.video import from_frames

PROMPTS = ({"frames": [0, 12], "prompt": "a blue ball"},)


@pytest.fixture
def project(drawn_clip: Path, tmp_path: Path) -> Path:
    """A saved project, with its video in the folder above."""
    video = tmp_path / "ball.mp4"
    shutil.copy(drawn_clip, video)
    saved = Project(video, PlanConfig(keyframes=3), EditConfig(seed=4), PROMPTS, size="64x64", rest={"note": "mine"})
    saved.save(tmp_path / "work" / "ball.json")
    return tmp_path / "work" / "ball.json"


def test_a_project_comes_back(project: Path) -> None:
    found = open_project(project)
    assert (found.plan, found.edit, found.prompts) == (PlanConfig(keyframes=3), EditConfig(seed=4), PROMPTS)
    assert (found.size, found.frames, found.rest) == ("64x64", None, {"note": "mine"})
    assert found.timeline.ranges == (PromptRange(0, 12, "a blue ball"),)
    found.save(project)
    assert open_project(project) == found


def test_prompts_in_seconds_stay_so_until_the_video_is_known(project: Path) -> None:
    prompts = [{"seconds": [0.5, 1.0], "prompt": "a cube"}, {"seconds": [0.0, 0.5], "prompt": "a ball"}]
    project.write_text(json.dumps(json.loads(project.read_text()) | {"prompts": prompts}))
    found = open_project(project)
    found.save(project)
    assert json.loads(project.read_text())["prompts"] == prompts
    film = from_frames(np.zeros((12, 64, 64, 3), np.uint8), 12)
    assert found.timeline.on(film).ranges == (PromptRange(0, 6, "a ball"), PromptRange(6, 12, "a cube"))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder and files as a model's, in the folder at hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "toon").mkdir(parents=True)
    for name in ("ink.safetensors", "vae.safetensors", "word.safetensors"):
        (tmp_path / "models" / name).touch()
    return tmp_path / "models"


NAMED = "models/toon --lora=models/ink.safetensors=0.5 --vae=models/vae.safetensors --embedding=models/word.safetensors"


def test_a_model_of_files_is_found_from_another_folder(
    project: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(open_project(project), model=NAMED).save(project)
    assert json.loads(project.read_text())["model"].startswith("../models/toon --lora=../models/ink.safetensors=0.5")
    (tmp_path / "shell").mkdir()
    monkeypatch.chdir(tmp_path / "shell")
    found = ModelParts.parse(open_project(Path("..") / "work" / "ball.json").model)
    assert all(Path(name).exists() for name in (found.model, found.loras[0][:-4], found.vae, *found.embeddings))


def test_what_was_a_file_is_never_looked_for_on_the_hub(
    project: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaflow_core.model.hub.client._fetch", lambda *_: pytest.fail("the Hub is asked"))
    replace(open_project(project), model=NAMED).save(tmp_path / "ball.json")
    replace(open_project(project), model=NAMED).save(project, name="ball.mp4")
    assert "./models/toon" in (tmp_path / "ball.json").read_text() and "./models/toon" in project.read_text()
    shutil.rmtree(model)
    for file in (tmp_path / "ball.json", project):
        named = ModelParts.parse(open_project(file, tmp_path / "ball.mp4").model)
        with pytest.raises(AdaFlowError, match="there is no model"):
            model_folder(named.model)
        assert not any(is_file_id(name) for name in (*named.loras, named.vae, *named.embeddings))


def test_a_model_by_its_name_keeps_it(project: Path, model: Path) -> None:
    for name in ("embedded", "sd15", "somebody/toon@main --lora=somebody/ink=0.5"):
        replace(open_project(project), model=name).save(project)
        assert json.loads(project.read_text())["model"] == open_project(project).model == name
    project.write_text(json.dumps(json.loads(project.read_text()) | {"model": "models/toon"}))
    assert open_project(project).model == "models/toon", "as projects were written before"


def test_takes_that_others_added_stay_and_other_changes_are_not_written_over(project: Path) -> None:
    take = {"frames": [0, 2], "prompt": "a cube", "settings": {}}
    opened = open_project(project)
    assert takes_added(project, opened) == () == takes_added(project.parent / "new.json", None)
    replace(opened, takes=(take,)).save(project)
    assert takes_added(project, opened) == (take,)
    with pytest.raises(AdaFlowError, match=r"ball\.json was changed by another command"):
        takes_added(project, None)
    for other in (replace(opened, model="sd15"), replace(opened, takes=()), replace(opened, edit=EditConfig(seed=5))):
        other.save(project)
        with pytest.raises(AdaFlowError, match="was changed by another command"):
            takes_added(project, replace(opened, takes=(take,)))


def test_the_video_is_found_beside_the_file_or_where_it_is_named(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(project, elsewhere)
    with pytest.raises(AdaFlowError, match=r"ball\.mp4 of the project is not there"):
        (tmp_path / "ball.mp4").rename(tmp_path / "other.mp4")
        open_project(elsewhere / "ball.json")
    assert open_project(elsewhere / "ball.json", tmp_path / "other.mp4").video == tmp_path / "other.mp4"
    shutil.copy(tmp_path / "other.mp4", elsewhere / "ball.mp4")
    assert open_project(elsewhere / "ball.json").video == elsewhere / "ball.mp4"


def test_a_folder_of_pictures_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "pictures").mkdir(parents=True)
        (tmp_path / name / "pictures" / "0.png").write_bytes(b"a picture")
    Project(tmp_path / "here" / "pictures", PlanConfig(), EditConfig(), PROMPTS).save(tmp_path / "here" / "a.json")
    shutil.copy(tmp_path / "here" / "a.json", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert open_project(tmp_path / "there" / "a.json").video == tmp_path / "there" / "pictures"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version 2"),
        ({"kind": None}, "is no project"),
        ({"prompts": "a ball"}, "lacks a part, or has a wrong one"),
        ({"prompts": [{"frames": [3], "prompt": "a ball"}]}, "write a range as"),
        ({"takes": [{"frames": [0, 2], "prompt": "a", "settings": {"sead": 1}}]}, "hold what is no take"),
        (
            {"takes": [{"frames": [0, 2], "prompt": "a", "source_prompt": 5, "settings": {}}]},
            "write a range as",
        ),
        ({"takes": [{"frames": [0, 2], "settings": {}}]}, "hold what is no take"),
        ({"takes": [{"frames": [0, 2], "prompt": None, "settings": {}}]}, "hold what is no take"),
        ({"prompts": [{"seconds": [0, 10**400], "prompt": "a"}]}, "ends after any video"),
        ({"video": {}}, "does not say which video it is of"),
        ({"video": {"path": "clip.mp4"}}, "does not say which video it is of"),
        ({"settings": {"plan": {"keyframs": 3}}}, "keyframs"),
        ({"settings": {"edit": {"seed": "four"}}}, "seed"),
        ({"video": {"path": "../ball.mp4", "checksum": "0"}}, "is not the video of the project"),
        ({"crossfade": "8"}, "the crossfade of the project .* is '8'"),
        ({"crossfade": -1}, "crossfade is -1"),
        ({"prompts": [{"frames": [0, 9], "prompt": "a"}, {"frames": [8, 12], "prompt": "b"}]}, "overlap"),
        ({"prompts": [{"frames": [0, 12], "prompt": None}]}, r"ball\.json has no prompt"),
    ],
)
def test_what_is_no_project_is_refused(project: Path, change: dict[str, Any], says: str) -> None:
    project.write_text(json.dumps(json.loads(project.read_text()) | change))
    with pytest.raises(AdaFlowError, match=says):
        open_project(project)


def test_a_project_is_of_the_video_that_was_planned(project: Path, tmp_path: Path) -> None:
    """Also where another lies there when it is saved; and without any it says so."""
    opened, file = open_project(project), tmp_path / "again.json"
    replace(opened, checksum="planned").save(file)
    assert json.loads(file.read_text())["video"]["checksum"] == "planned"
    with pytest.raises(AdaFlowError, match=r"without its video; put .*gone\.mp4 back"):
        replace(opened, video=tmp_path / "gone.mp4").save(file)


@pytest.mark.parametrize("text", ["", "[1", "[]", "7"])
def test_broken_files_are_refused(project: Path, text: str) -> None:
    project.write_text(text)
    with pytest.raises(AdaFlowError, match=r"ball\.json is no "):
        open_project(project)


def test_what_could_not_be_opened_again_is_not_written(project: Path) -> None:
    before, found = project.read_bytes(), open_project(project)
    large = replace(found, rest={"by_hand": [{"frame": 0, "png": "A" * JSON_BYTES}]})
    with pytest.raises(AdaFlowError, match=r"would have 65 MiB .* 64 MiB are the most; give fewer pictures"):
        large.save(project)
    assert project.read_bytes() == before and list(project.parent.iterdir()) == [project]
    masks = np.zeros((12, 64, 64), bool)
    masks[:, 16:32, 16:32] = True
    with pytest.raises(AdaFlowError, match=r"the masks of all frames are too large for a project; write them as a vid"):
        with_over(found, Region(masks=masks), None, project.parent)
    assert with_over(found, Region({0: masks[0]}), None, project.parent).region is not None
    room = JSON_BYTES - len(before)
    replace(found, rest=found.rest | {"note": "mine" + "A" * room}).save(project)
    assert project.stat().st_size == JSON_BYTES and len(open_project(project).rest["note"]) == room + 4
    project.write_bytes(project.read_bytes() + b" ")
    with pytest.raises(AdaFlowError, match=r"the project .*ball\.json has more than 64 MiB; give a smaller file"):
        open_project(project)


def test_a_draft_then_the_edit_then_the_project_on_another_machine(
    tiny_folder: Callable[[str], Path],
    drawn_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        shutil.copy(drawn_clip, folder / "clip.mp4")
    monkeypatch.setenv("ADAFLOW_CACHE", str(here / "cache"))
    command = [
        "edit", str(here / "clip.mp4"), "--prompt", "a blue ball", "--model", str(tiny_folder("sd1")),
        "--device", "cpu", "--dtype", "float32", "--frames", "0:7", "--size", "64x64", "--keyframes", "3",
        "--steps", "3", "--out", str(here / "edit.mp4"),
    ]  # fmt: skip
    assert main([*command, "--draft", "--seeds", "0,1", "--variation", "0.5"]) == 0
    assert "forecast" in capsys.readouterr().err
    sheet = np.asarray(Image.open(here / "draft.png"))
    assert sheet.shape[0] > 3 * 128 and not (here / "edit.mp4").exists()
    drafts = json.loads((here / "draft.json").read_text())["drafts"]
    assert [draft["label"] for draft in drafts] == ["seed 0", "seed 1"]
    assert main([*command, "--seed", "1", "--variation", "0.5", "--project", str(here / "film.json")]) == 0
    shutil.copy(here / "film.json", there)
    (here / "clip.mp4").unlink()
    monkeypatch.setenv("ADAFLOW_CACHE", str(there / "cache"))
    exact = ["--device", "cpu", "--dtype", "float32", "--out", str(there / "edit.mp4")]
    assert main(["edit", "--project", str(there / "film.json"), *exact]) == 0
    assert (there / "edit.mp4").read_bytes() == (here / "edit.mp4").read_bytes()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--seeds", "1,2"], "add --draft"),
        (["--draft", "--seeds", "1,2"], "add, say, --variation 0.3"),
        (["--draft", "--seeds", "1,2,3,4,5"], "4 fit side by side"),
        (["--draft", "--seeds", "1,x", "--variation", "0.3"], "seed is 'x'"),
        (["--draft", "--compare", "sead=1"], "name a setting"),
        (["--draft", "--compare", "guidance=0"], "guidance is 0"),
    ],
)
def test_drafts_that_cannot_be_are_refused_before_any_work(
    drawn_clip: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["edit", str(drawn_clip), "--prompt", "a blue ball", *flags]) == 2
    assert says in capsys.readouterr().err
