"""The page without a browser: jobs, what is shown, and the API on the embedded model."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaflow_core.backbone import EMBEDDED
from adaflow_core.types import AdaFlowError, Progress, Stopped
from plans import FINE, small_plan
from webui import views
from webui.jobs import Jobs, Report, Snapshot, Stop

with_model = pytest.mark.skipif(
    not (EMBEDDED / "model_index.json").is_file(), reason="no embedded model in assets/embedded-sd"
)


# --- jobs -------------------------------------------------------------------------------------------


def until(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def held(release: threading.Event) -> Any:
    """Work that runs until it is released or stopped."""

    def work(report: Report, stop: Stop) -> str:
        while not release.wait(0.005):
            if stop():
                raise Stopped
        return "released"

    return work


def test_jobs_run_one_at_a_time_in_order_urgent_ones_first() -> None:
    jobs, order, running, most = Jobs(), [], 0, 0
    lock, release = threading.Lock(), threading.Event()

    def work(name: str) -> Any:
        def run(report: Report, stop: Stop) -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
                order.append(name)
            return name

        return run

    first = jobs.submit("edit", held(release))
    until(lambda: jobs.snapshot(first).state == "running")
    ids = [jobs.submit("edit", work("a")), jobs.submit("edit", work("b"))]
    ids.append(jobs.submit("plan", work("urgent"), urgent=True))
    assert [jobs.snapshot(i).ahead for i in ids] == [2, 3, 1]
    release.set()
    assert [jobs.wait(i, 5).result for i in ids] == ["a", "b", "urgent"]
    assert order == ["urgent", "a", "b"] and most == 1


def test_a_running_job_stops_at_its_next_look() -> None:
    jobs = Jobs()
    job = jobs.submit("edit", held(threading.Event()))
    until(lambda: jobs.snapshot(job).state == "running")
    assert jobs.stop(job)
    snapshot = jobs.wait(job, 5)
    assert snapshot is not None and snapshot.state == "stopped" and snapshot.result is None
    assert not jobs.stop(job), "it is over"


def test_a_waiting_job_stops_without_having_run() -> None:
    jobs, release, ran = Jobs(), threading.Event(), []
    first = jobs.submit("edit", held(release))
    second = jobs.submit("edit", lambda report, stop: ran.append(1))
    assert jobs.stop(second)
    assert jobs.snapshot(second).state == "stopped"
    release.set()
    jobs.wait(first, 5)
    assert ran == []


def test_progress_and_the_last_preview_are_kept() -> None:
    jobs, release = Jobs(), threading.Event()

    def work(report: Report, stop: Stop) -> None:
        report(Progress("invert", 1, 2, 3.0, np.zeros((1, 2, 2, 3), np.uint8)))
        report(Progress("invert", 1, 4, 3.0))
        release.wait(5)

    job = jobs.submit("edit", work, forecast={"invert": 8.0, "edit": 20.0})
    until(lambda: (s := jobs.snapshot(job)) and s.progress and s.progress.total == 4)
    snapshot = jobs.snapshot(job)
    release.set()
    assert snapshot is not None and snapshot.preview is not None
    assert snapshot.remaining == 3.0 * 3 + 20.0, "this stage at its pace, the next as forecast"


def test_a_failure_says_what_the_user_can_mend_and_nothing_of_the_inside() -> None:
    jobs = Jobs()

    def mendable(report: Report, stop: Stop) -> None:
        raise AdaFlowError("choose another file")

    def internal(report: Report, stop: Stop) -> None:
        raise RuntimeError("secret of the inside")

    first, second = jobs.submit("plan", mendable), jobs.submit("plan", internal)
    told, untold = jobs.wait(first, 5), jobs.wait(second, 5)
    assert told is not None and told.state == "failed" and told.problem == "choose another file"
    assert untold is not None and untold.state == "failed" and "secret" not in untold.problem
    assert jobs.wait(jobs.submit("plan", lambda report, stop: 1), 5).result == 1


def test_old_results_are_discarded() -> None:
    gone: list[int] = []
    jobs = Jobs(keep=2, discard=gone.append)
    ids = [jobs.submit("edit", lambda report, stop, n=n: n + 1) for n in range(4)]
    jobs.wait(ids[-1], 5)
    until(lambda: gone == [1, 2])
    assert jobs.snapshot(ids[0]) is None and jobs.snapshot(ids[3]).result == 4


def test_ids_cannot_be_guessed() -> None:
    jobs = Jobs(waiting=50)
    ids = {jobs.submit("edit", lambda report, stop: None) for _ in range(50)}
    assert len(ids) == 50 and min(map(len, ids)) >= 20


# --- views ------------------------------------------------------------------------------------------


def snapshot_of(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "id": "x", "kind": "edit", "state": "running", "ahead": 0, "progress": Progress("edit", 3, 12, 6.0),
        "preview": None, "elapsed": 10.0, "remaining": 30.0, "stopping": False, "problem": "", "result": None,
    }  # fmt: skip
    return Snapshot(**{**values, **changes})


def test_progress_says_stage_share_and_time_left() -> None:
    html = views.progress(snapshot_of(preview=np.zeros((3, 8, 8, 3), np.uint8)))
    assert "Editing" in html and "about 30 s left" in html and 'aria-valuenow="25"' in html
    assert 'alt="The 3 keyframes' in html and "data:image/jpeg" in html


def test_everything_from_outside_is_escaped() -> None:
    attack = "<script>alert(1)</script>"
    for html in (
        views.notice([attack]),
        views.line(attack),
        views.quote(attack),
        views.vocabulary([attack]),
        views.progress(snapshot_of(state="failed", problem=attack)),
    ):
        assert "<script" not in html and "&lt;script" in html


def test_a_waiting_job_says_how_many_are_before_it() -> None:
    assert "2 other jobs first" in views.progress(snapshot_of(state="waiting", ahead=2, progress=None))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (12.4, "12 s"), (60, "1 min 00 s"), (3900, "1 h 05 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert views.duration(seconds) == text


def test_keyframes_are_shown_in_time_order_with_their_segments() -> None:
    captions = [caption for _, caption in views.keyframe_items(small_plan())]
    assert captions == [
        "0.30 s, frame 3 · segment of 8",
        "1.00 s, frame 10 · segment of 6",
        "1.70 s, frame 17 · segment of 6",
    ]


def test_tokens_follow_the_selected_keyframe_and_grid() -> None:
    plan = small_plan()
    first, sentence = views.token_items(plan, 0, str(FINE), views.KEPT)
    third, _ = views.token_items(plan, 2, str(FINE), views.KEPT)
    assert len(first) == len(third) == 2 and first[0][1] != third[0][1]
    assert f"all {FINE.n} tokens of its own" in sentence and "50% of the others'" in sentence
    assert "2x3 grid" in views.token_items(plan, 0, "2x3", views.KEPT)[1]
    assert "score" in views.token_items(plan, 0, None, views.SCORES)[1]


def test_cost_says_tokens_time_and_memory() -> None:
    html = views.cost(small_plan())
    assert "48" in html and "of 72 unpruned (67% kept)" in html
    assert "1 min 35 s" in html and "1.5 GiB" in html


# --- the page ---------------------------------------------------------------------------------------

ELSEWHERE = "nobody/has-this-model"
EVENTS = [
    "example",
    "describe",
    "choose_model",
    "preview",
    "replan",
    "stop_preview",
    "tokens",
    "frame",
    "check_prompt",
    "edit",
    "watch",
    "compare",
    "stop",
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served page over the embedded model; nothing is loaded before it is needed."""
    from webui.page import build
    from webui.studio import Studio

    folder = tmp_path_factory.mktemp("webui")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        blocks = build(Studio("embedded", "cpu", folder / "results", models=[ELSEWHERE]))
        _, url, _ = blocks.launch(
            server_name="127.0.0.1", quiet=True, prevent_thread_lock=True, allowed_paths=[str(folder)]
        )
        yield url
        blocks.close()


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
    with pytest.raises(AppError, match="There is no plan yet"):
        client.predict(1, api_name="/tokens")
    assert client.predict("nonsense", api_name="/watch")[0] == {"state": "unknown"}


def test_an_upload_over_the_limit_is_refused(drawn_clip: Path) -> None:
    from webui.limits import Limits

    assert Limits(seconds=2).check(str(drawn_clip)).frames == 12
    with pytest.raises(AdaFlowError, match=r"lasts 1 s; this page takes up to 0\.5 s"):
        Limits(seconds=0.5).check(str(drawn_clip))
    with pytest.raises(AdaFlowError, match=r"pixels; this page takes up to 32 a side"):
        Limits(side=32).check(str(drawn_clip))


def test_a_taken_port_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    import app

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert app.main(["--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("adaflow: error: ") and error.count("\n") == 1 and "--port" in error


def test_mcp_without_its_package_ends_with_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import app

    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.main(["--mcp"]) == 2
    assert "gradio[mcp]" in capsys.readouterr().err


@with_model
@pytest.mark.slow
def test_a_client_plans_looks_edits_and_stops(client: Any, drawn_clip: Path) -> None:
    from gradio_client import handle_file

    from adaflow_core.video import probe

    clip = handle_file(str(drawn_clip))
    settings = {"keyframes": 3, "steps": 2, "side": 192}
    planned = client.predict(clip, "", prune=0.5, api_name="/preview", **settings)
    facts, gallery = planned[1], planned[4]
    keyframes = facts["keyframes"]
    assert facts["frames"] == 12 and facts["height"] == 192 and len(keyframes) == 3
    assert len(gallery["value"] if isinstance(gallery, dict) else gallery) == 3
    _, others, sentence = client.predict(2, api_name="/tokens")
    assert len(others) == 2 and "Keyframe 2" in sentence

    again = client.predict(clip, "", prune=0.9, api_name="/replan", **settings)
    assert again[1]["keyframes"] == keyframes and again[1]["tokens_kept"] < facts["tokens_kept"]

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
        assert (info.frames, info.height, info.fps) == (12, 192, 12)
    assert Path(source).read_bytes() != Path(edited).read_bytes()
    report = report if isinstance(report, dict) else json.loads(Path(report).read_text())
    assert report["prompt"] == "a blue ball" and report["keyframes"] == keyframes

    job = client.predict("a green ball", steps=2, api_name="/edit")
    assert "Plan and inversion were reused" in client.predict(job, api_name="/watch")[2]

    job = client.predict("a red ball", steps=100, api_name="/edit")
    watching = client.submit(job, api_name="/watch")
    until(lambda: any(out[0]["state"] == "running" for out in watching.outputs()), 30)
    client.predict(job, api_name="/stop")
    began = time.monotonic()
    assert watching.result(timeout=60)[0]["state"] == "stopped"
    assert time.monotonic() - began < 10  # two seconds of compute, on a machine that may be busy


@with_model
@pytest.mark.slow
def test_unknown_words_are_named_and_checkpoints_that_know_them(client: Any) -> None:
    html = client.predict("a red ball and a xylophone", api_name="/check_prompt")
    assert "xylophone" in html and "“ball”" not in html and ELSEWHERE in html


@with_model
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_had_leaves_the_page_as_it_was(client: Any) -> None:
    status, model, *_ = client.predict(ELSEWHERE, api_name="/choose_model")
    assert status == "" and model == "embedded"
    assert "xylophone" in client.predict("a xylophone", api_name="/check_prompt")
    status, model, prune, steps, *_ = client.predict("embedded", api_name="/choose_model")
    assert (prune, steps) == (0.6, 10)
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict("/etc", api_name="/choose_model")


def test_a_picture_that_is_shown_again_is_not_written_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from webui.pictures import shown

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: shown(picture), range(32)))
    (path,) = map(Path, paths)
    before = path.stat()
    assert shown(picture) == str(path) and shown(255 - picture) != str(path)
    after = path.stat()
    assert before.st_ino == after.st_ino and before.st_ctime_ns < after.st_ctime_ns  # the same file, young again
    assert len(list(path.parent.iterdir())) == 2
    assert np.asarray(Image.open(shown(picture, "png"))).tolist() == picture.tolist()
