"""The page without a browser: its API on the embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaflow_core.video.decode import probe
from helpers.films import make
from helpers.jobs import until
from helpers.pages import half_size, serve_page, with_model
from webui.settings import ALL

ELSEWHERE = "nobody/has-this-model"


EVENTS = [
    "describe",
    "playable",
    "choose_model",
    "preview",
    "replan",
    "stop_preview",
    "tokens",
    "frame",
    "matches",
    "column",
    "zoom",
    "plan_file",
    "check_prompt",
    "place",
    "draft",
    "edit",
    "retake",
    "open_project",
    "watch",
    "compare",
    "stop",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(half_size(tmp_path_factory.mktemp("model") / "embedded"))


@pytest.fixture(scope="module")
def address(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served page; nothing is loaded before it is needed."""
    with serve_page(tmp_path_factory.mktemp("webui"), model, models=(ELSEWHERE,)) as url:
        yield url


@pytest.fixture
def client(address: str) -> Any:
    """A visitor of its own."""
    from gradio_client import Client

    return Client(address, verbose=False)


def test_every_event_has_a_name_and_its_parameters_have_names(client: Any) -> None:
    api = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(api) == sorted(f"/{name}" for name in EVENTS)
    for name, endpoint in api.items():
        for parameter in endpoint["parameters"]:
            assert not parameter["parameter_name"].startswith("param_"), name
        for value in endpoint["returns"]:
            assert not value["label"].startswith("value_"), name


def test_what_is_wrong_is_said_in_a_sentence(client: Any, tmp_path: Path) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    with pytest.raises(AppError, match=r"^notes\.mp4 is not a video"):
        client.predict(handle_file(str(text)), api_name="/preview")
    with pytest.raises(AppError, match="There is no video yet"):
        client.predict(None, api_name="/preview")
    with pytest.raises(AppError, match="There is no plan to edit from"):
        client.predict("a blue ball", api_name="/edit")
    with pytest.raises(AppError, match="There is no plan to edit from"):
        client.predict("a blue ball", api_name="/place")
    with pytest.raises(AppError, match="There is no plan yet"):
        client.predict(1, api_name="/tokens")
    assert client.predict("nonsense", api_name="/watch")[0] == {"state": "unknown"}


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "libx264"), ("a.mkv", "mpeg4"), ("a.mp4", "mpeg4")])
def test_a_video_that_is_shown_again_is_the_same_file(
    name: str, codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its format, as after a reload; and the system's ffmpeg reads nothing of it, where there is one."""
    from gradio import Video, processing_utils

    from webui.page import build
    from webui.studio import Studio

    def run(*_: Any, **__: Any) -> Any:
        raise AssertionError("ffmpeg was started")

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(processing_utils, "ffmpeg_installed", lambda: True)
    for program in ("FFmpeg", "FFprobe"):
        monkeypatch.setattr(processing_utils, program, run)
    blocks = build(Studio("embedded", "cpu", tmp_path / "results"))
    path = make(tmp_path / name, 8, codec)
    videos = [component for component in blocks.blocks.values() if isinstance(component, Video)]
    assert len(videos) >= 4, "of step 1 and its copy, source and edit"
    for video in [*videos, Video(render=False)]:  # and one that an update has made anew
        shown = video.postprocess(str(path))
        assert shown is not None and shown.path == str(path)


@pytest.mark.parametrize(("name", "codec", "played"), [
    ("a.MP4", "libx264", True), ("a.MOV", "libx264", False), ("a.avi", "mpeg4", False), ("a.ts", "libx264", False),
    ("a.gif", "gif", False),
])  # fmt: skip
def test_files_are_taken_by_content_and_shown_by_a_copy(
    name: str, codec: str, played: bool, client: Any, tmp_path: Path
) -> None:
    from gradio_client import handle_file

    path = make(tmp_path / name, 8, codec, pixels="rgb8" if codec == "gif" else "yuv420p")
    clip = handle_file(str(path))
    said, copy = client.predict(clip, api_name="/describe"), client.predict(clip, api_name="/playable")
    assert "192x128 pixels" in said and ("editing works" not in said) == played
    assert copy["visible"] != played
    if not played:
        shown = copy["value"]
        assert probe(shown["video"] if isinstance(shown, dict) else shown).codec == "h264"


def test_damage_is_told_with_the_upload(client: Any, drawn_clip: Path, tmp_path: Path) -> None:
    from gradio_client import handle_file

    whole = client.predict(handle_file(str(drawn_clip)), api_name="/describe")
    assert "12 frames, 1.0 s" in whole and "damaged" not in whole
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(drawn_clip.read_bytes()[:-1500])
    told = client.predict(handle_file(str(cut)), api_name="/describe")
    assert "pixels" in told and "cut.mp4 is damaged" in told and "frames could be read" in told


@with_model
@pytest.mark.thorough
@pytest.mark.slow
def test_a_client_plans_looks_edits_and_stops(client: Any, drawn_clip: Path) -> None:
    from gradio_client import handle_file

    clip = handle_file(str(drawn_clip))
    settings = {"keyframes": 3, "steps": 2, "frames": "0:6"}
    planned = client.predict(clip, "", prune=0.5, api_name="/preview", **settings)
    facts, gallery = planned[1], planned[4]
    keyframes = facts["keyframes"]
    assert facts["frames"] == 6 and facts["height"] == 128 and len(keyframes) == 3
    assert len(gallery["value"] if isinstance(gallery, dict) else gallery) == 3
    _, others, sentence = client.predict(2, api_name="/tokens")
    assert len(others) == 2 and "Keyframe 2" in sentence
    points, where = client.predict(4, 60, 60, api_name="/matches")
    assert len(points["value"] if isinstance(points, dict) else points) >= 2 and "At (60, 60)" in where
    written = client.predict("json", api_name="/plan_file")
    assert json.loads(Path(written).read_text())["keyframes"] == keyframes

    again = client.predict(clip, "", prune=0.9, api_name="/replan", **settings)
    assert again[1]["keyframes"] == keyframes and again[1]["tokens_kept"] < facts["tokens_kept"]
    longer = client.predict(clip, "", prune=0.9, inversion_steps=40, api_name="/replan", **settings)
    assert longer[1]["plan"] == again[1]["plan"] and longer[1]["seconds"] > 2 * again[1]["seconds"]

    by_hand = client.predict(clip, "", prune=0.9, keyframes_at="1,6,9", api_name="/replan", steps=2, keyframes=3)
    assert by_hand[1]["keyframes"] == [1, 6, 9]
    client.predict(clip, "", prune=0.9, api_name="/replan", **settings)

    job = client.predict("a blue ball", steps=2, api_name="/edit")
    done = client.predict(job, api_name="/watch")
    status, _, quoted, source, edited, _, middle, _, scores, *_, command, report = done
    assert status["state"] == "done" and "a blue ball" in quoted and "reused" not in quoted
    assert "Prompt agreement" in scores and "--keyframes=3" in command
    pair, when = client.predict(job, 5, api_name="/compare")
    assert len(middle) == len(pair) == 2 and pair[0] != pair[1] and "frame 5" in when
    source, edited = (v["video"] if isinstance(v, dict) else v for v in (source, edited))
    for path in (source, edited):
        info = probe(path)
        assert (info.frames, info.height, info.fps) == (6, 128, 12)
    assert Path(source).read_bytes() != Path(edited).read_bytes()
    report = report if isinstance(report, dict) else json.loads(Path(report).read_text())
    assert report["prompt"] == "a blue ball" and report["keyframes"] == keyframes

    job = client.predict("a green ball", steps=2, api_name="/edit")
    assert "Plan and inversion were reused" in client.predict(job, api_name="/watch")[2]

    job = client.predict("a red ball", steps=100, api_name="/edit")
    watching = client.submit(job, api_name="/watch")
    until(lambda: any(out[0]["state"] == "running" for out in watching.outputs()))
    client.predict(job, api_name="/stop")
    assert watching.result(timeout=60)[0]["state"] == "stopped"


@with_model
@pytest.mark.thorough
@pytest.mark.slow
def test_the_page_shows_where_a_prompt_changes_the_video(client: Any, drawn_clip: Path) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    settings = {"keyframes": 2, "steps": 2, "side": 192, "frames": "0:4"}
    client.predict(handle_file(str(drawn_clip)), "a red ball in a meadow", api_name="/preview", **settings)
    with pytest.raises(AppError, match="The prompt is empty"):
        client.predict(" ", api_name="/place")
    status, sentence, pictures, _ = client.predict("a blue ball in a meadow", focus=1, api_name="/place")
    pictures = pictures["value"] if isinstance(pictures, dict) else pictures
    assert "Search ready" in status and 'href="#place"' in status
    assert "of the picture; shape is kept" in sentence and len(pictures) == 2
    sentence = client.predict("a blue ball in a meadow", focus=0, api_name="/place")[1]
    assert "the whole picture; at focus 0 it is held to no part of it" in sentence
    sentence = client.predict("a watercolour of the sea", focus=1, api_name="/place")[1]
    assert "the whole picture; the prompts differ all over it" in sentence

    # Stop ends the search and the edit that it waits for.
    job = client.predict("a red ball at night", steps=100, api_name="/edit")
    searching = client.submit("a green ball in a meadow", focus=1, api_name="/place")
    until(lambda: searching.outputs() or searching.done())
    client.predict(job, api_name="/stop")
    with pytest.raises(AppError, match="stopped"):
        searching.result(timeout=60)
    assert client.predict(job, api_name="/watch")[0]["state"] == "stopped"


@pytest.mark.thorough
@with_model
@pytest.mark.slow
def test_an_edit_takes_the_settings_of_its_place(client: Any, drawn_clip: Path) -> None:
    from gradio_client import handle_file

    settings = {"keyframes": 2, "side": 64, "frames": "0:2"}
    client.predict(handle_file(str(drawn_clip)), "a red ball in a meadow", api_name="/preview", **settings)
    given = {"steps": 2, "focus": 0.5, "structure": 0.4, "smoothing": 0.3, "seed": 7, "detail": 0.5}
    job = client.predict("a blue ball in a meadow", **given, api_name="/edit")
    command, report = client.predict(job, api_name="/watch")[-2:]
    report = report if isinstance(report, dict) else json.loads(Path(report).read_text())
    used = report["settings"]["edit"]
    assert report["height"] == 64, "not the model's own"
    assert (used["focus"], used["structure"], used["smoothing"], used["seed"]) == (0.5, 0.4, 0.3, 7)
    assert all(flag in command for flag in ("--focus=0.5", "--structure=0.4", "--smoothing=0.3", "--detail=0.5"))


@with_model
@pytest.mark.slow
def test_unknown_words_are_named_and_checkpoints_that_know_them(client: Any, model: str) -> None:
    client.predict(model, api_name="/choose_model")  # only a model that is loaded is asked
    html = client.predict("a red ball and a xylophone", api_name="/check_prompt")
    assert "xylophone" in html and "“ball”" not in html and ELSEWHERE in html
    html = client.predict("a (red:1.3) ball", "", "blue " * 120, api_name="/check_prompt")
    assert "(red:1.3)" in html and "The negative prompt is too long" in html


@with_model
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_had_leaves_the_page_as_it_was(client: Any, model: str) -> None:
    client.predict(model, api_name="/choose_model")
    status, shown, *_ = client.predict(ELSEWHERE, api_name="/choose_model")
    assert status == "" and shown == model
    assert "xylophone" in client.predict("a xylophone", api_name="/check_prompt")
    settings = dict(zip(ALL, client.predict(model, api_name="/choose_model")[-len(ALL) :], strict=True))
    assert (settings["prune"], settings["steps"], settings["keyframes"]) == (0.6, 10, 0)
    status, shown, *_ = client.predict("/etc", api_name="/choose_model")
    assert status == "" and shown == model
