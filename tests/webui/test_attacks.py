"""What a visitor with bad intentions tries on a page for strangers, and checkpoints with something in them."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.project import Project
from adaflow_core.model.loading import EMBEDDED, load_backbone
from adaflow_core.progress import Monitor
from adaflow_core.report.scores import Scores
from adaflow_core.types import EditResult
from adaflow_core.video.decode import decode_video
from helpers.jobs import finish
from webui.jobs.finished import write_finished

ROOT = Path(__file__).resolve().parents[2]
HTML = "<img src=x onerror=alert(1)><script>alert(2)</script>"
KNOWN = "stable-diffusion-v1-5/stable-diffusion-v1-5"
with_model = pytest.mark.skipif(not (EMBEDDED / "model_index.json").is_file(), reason="no model in assets/embedded-sd")


@dataclass
class Victim:
    """A served page, what lies around it, and a visitor's ways to talk to it."""

    address: str
    folder: Path
    secret: Path  # a video that nobody uploaded
    studio: Any
    client: httpx.Client
    # One visitor's: for each new one Gradio copies the state of every component, which takes longer than the call.
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def get(self, path: str) -> httpx.Response:
        # As it is written: a client that tidies ".." away would attack nothing.
        return self.client.get(httpx.URL(self.address, raw_path=path.encode()))

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    def dependencies(self) -> list[tuple[int, list[str]]]:
        """Every event, named or private: its number and the types of its inputs."""
        config = self.client.get(f"{self.address}/config").json()
        types = {component["id"]: component["type"] for component in config["components"]}
        return [(d["id"], [types[i] for i in d["inputs"]]) for d in config["dependencies"] if d["backend_fn"]]

    def inputs(self, event: int) -> list[Any]:
        """What the inputs of an event hold on a page that was just opened."""
        config = self.client.get(f"{self.address}/config").json()
        values = {component["id"]: component["props"].get("value") for component in config["components"]}
        return next([values[i] for i in d["inputs"]] for d in config["dependencies"] if d["id"] == event)

    def call(self, event: int, data: list[Any]) -> str:
        """Everything that the server says to an event, as text."""
        body = {"fn_index": event, "data": data, "session_hash": self.session, "trigger_id": None, "event_data": None}
        content, kind = json.dumps(body), {"content-type": "application/json"}  # with NaN, which is not JSON
        joined = self.client.post(f"{self.address}/gradio_api/queue/join", content=content, headers=kind)
        if joined.status_code != 200:
            return joined.text
        said = []
        data_url = f"{self.address}/gradio_api/queue/data"
        with self.client.stream("GET", data_url, params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                said.append(line)
                if '"process_completed"' in line or '"unexpected_error"' in line:
                    break
        return "\n".join(said)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, drawn_clip: Path) -> Iterator[Victim]:
    from webui.limits import PUBLIC
    from webui.serving.server import serve
    from webui.studio import Studio

    folder = tmp_path_factory.mktemp("victim")
    secret = folder / "secret.mp4"
    shutil.copy(drawn_clip, secret)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        results = folder / "uploads" / "results"  # as app.py has them
        studio = Studio("embedded", "cpu", results, limits=replace(PUBLIC, megabytes=1), public=True)
        server = serve(studio, folder / "uploads")
        with httpx.Client(timeout=60) as client:
            yield Victim(server.address, folder, secret, studio, client)
        server.close()


def failed(said: str) -> bool:
    """Whether an event came to its end without success."""
    return '"success":false' in said.replace(" ", "").split("process_completed")[-1]


def tells_nothing(text: str, victim: Victim) -> None:
    for inside in (str(ROOT), str(victim.folder), str(Path.home()), "Traceback", "site-packages", "root:x:0"):
        assert inside not in text, inside


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/"])
def test_no_address_gives_files_from_outside(victim: Victim, route: str) -> None:
    content = victim.secret.read_bytes()
    tried = [str(victim.secret), "/etc/passwd", "app.py", "./requirements.txt", str(ROOT / "app.py")]
    tried += [f"{victim.uploads}/../secret.mp4", "../" * 12 + "etc/passwd", "/proc/self/environ", "~/.bashrc"]
    tried += [quote(path, safe="") for path in tried] + [quote(quote(path, safe=""), safe="") for path in tried]
    tried += [
        "..%2f" * 12 + "etc/passwd",
        "%2e%2e/" * 12 + "etc/passwd",
        "..\\..\\..\\etc\\passwd",
        "/etc/passwd%00.mp4",
    ]
    tried += [f"file://{victim.secret}", f"{victim.address}/healthz", "HTTP://127.0.0.1:1/x"]
    for path in tried:
        answer = victim.get(route + path)
        assert answer.status_code >= 400 or answer.headers["content-type"].startswith("text/html"), (route, path)
        assert content not in answer.content and b"root:x:0" not in answer.content, path
        assert b"argparse" not in answer.content and b"jobs" not in answer.content, path


def test_of_a_result_no_more_is_found_than_was_given(victim: Victim, drawn_clip: Path) -> None:
    """Its address cannot be guessed, and neither can that of the source by it."""
    video = decode_video(drawn_clip, size=(64, 64), frames=slice(0, 2))
    result, plan = (
        EditResult.of(video, np.array(video.frames), {"takes": ()}, ()),
        cast(Any, SimpleNamespace(video=video)),
    )
    project, scores = Project(drawn_clip, PlanConfig(), EditConfig(), ()), Scores(None, None, None)
    folder = victim.studio._new_folder()
    made = write_finished(folder, plan, result, project, "a ball", "", scores, Monitor(), public=True)
    assert folder.is_relative_to(victim.uploads) and len(folder.name) >= 16
    for given in (made.edit, made.source, made.report):
        assert victim.get(f"/gradio_api/file={quote(str(given))}").status_code == 200
    guesses = [folder.parent, folder, made.source.parent, folder / made.source.name, folder.parent / made.edit.name]
    for guess in (*map(str, guesses), f"{folder}/", f"{folder}/*", f"{folder.parent}/*/{made.edit.name}"):
        assert victim.get(f"/gradio_api/file={quote(guess)}").status_code == 403, guess


def test_no_file_parameter_takes_files_from_outside(victim: Victim) -> None:
    """Every event with a file among its inputs, private ones too."""
    attacked = 0
    for event, types in victim.dependencies():
        for place in [i for i, kind in enumerate(types) if kind in ("video", "image", "gallery", "file")]:
            for path in (
                str(victim.secret),
                f"{victim.uploads}/../secret.mp4",
                "../" * 12 + str(victim.secret).lstrip("/"),
                "app.py",
                f"{victim.address}/gradio_api/file={victim.secret}",
                f"file://{victim.secret}",
            ):
                for extra in ({}, {"url": f"{victim.address}/healthz"}, {"is_stream": True}):
                    data: list[Any] = [None] * len(types)
                    data[place] = {"path": path, "orig_name": "a.mp4", "meta": {"_type": "gradio.FileData"}, **extra}
                    said = victim.call(event, data)
                    assert failed(said) and "12 frames" not in said, (event, path)
                    tells_nothing(said.replace(path, ""), victim)
                    attacked += 1
    assert attacked >= 4 * 18, "preview, replan, describe and the edit's own preview take a video"
    with victim.secret.open("rb") as file:
        uploaded = httpx.post(
            f"{victim.address}/gradio_api/upload", files={"files": ("own.mp4", file)}, timeout=60
        ).json()[0]
    own = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
    events = victim.client.get(f"{victim.address}/config").json()["dependencies"]
    describe = next(event["id"] for event in events if event["api_name"] == "describe")
    assert "12 frames" in victim.call(describe, [own, None]), "what was uploaded is read"
    Path(uploaded).unlink()
    kept = [file for file in victim.uploads.rglob("*") if file.is_file()]
    assert not [file for file in kept if file.read_bytes() == victim.secret.read_bytes()]


KINDS = [
    "video", "uploadbutton", "imageeditor", "json", "textbox", "number", "slider", "dropdown", "radio", "checkbox",
    "checkboxgroup",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_from_an_address(kind: str, victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not from a public one: it would be downloaded without a limit on its size, whatever takes it."""
    fetched: list[str] = []

    async def get(url: str, **_: Any) -> httpx.Response:
        fetched.append(url)
        return httpx.Response(200, content=b"a film", request=httpx.Request("GET", url))

    monkeypatch.setattr("safehttpx.get", get)
    address = {"path": f"https://example.com/{kind}.mp4", "meta": {"_type": "gradio.FileData"}}
    place, event = min((types.index(kind), event) for event, types in victim.dependencies() if kind in types)
    data = victim.inputs(event)
    data[place] = address
    said = victim.call(event, data)
    assert failed(said) and "upload the file" in said and fetched == []
    assert not [file for file in victim.uploads.rglob(f"*{kind}.mp4")]


def test_every_kind_of_input_is_tried(victim: Victim) -> None:
    """A state is never sent."""
    assert {kind for _, types in victim.dependencies() for kind in types} - {"state"} == set(KINDS)


def test_no_address_hands_a_file_to_the_systems_ffmpeg(victim: Victim) -> None:
    for route in ("/gradio_api/process_recording", "/process_recording", "/gradio_api/process_recording/"):
        with victim.secret.open("rb") as file:
            answer = victim.client.post(f"{victim.address}{route}", files={"video": ("a.mp4", file)})
        assert answer.status_code == 403, route


@pytest.mark.parametrize(
    "name",
    ["../../../evil.mp4", "..\\..\\evil.mp4", "/etc/evil.mp4", f"{HTML}.mp4", "a" * 400 + ".mp4", "ü🎞️.mp4", ".."],
)
def test_uploads_stay_in_their_folder_whatever_their_name(victim: Victim, name: str) -> None:
    before = {file for file in victim.folder.rglob("*") if victim.uploads not in file.parents}
    answer = httpx.post(f"{victim.address}/gradio_api/upload", files={"files": (name, b"x" * 10)}, timeout=60)
    if answer.status_code == 200:
        stored = Path(answer.json()[0]).resolve()
        assert stored.is_relative_to(victim.uploads.resolve()) and "<" not in stored.name
    else:
        tells_nothing(answer.text, victim)
    assert {file for file in victim.folder.rglob("*") if victim.uploads not in file.parents} == before
    assert not Path("/etc/evil.mp4").exists()


def test_an_oversized_upload_is_refused_and_leaves_nothing(victim: Victim) -> None:
    before = set(victim.uploads.rglob("*"))
    files = {"files": ("big.mp4", b"x" * (2**20 + 1))}
    answer = httpx.post(f"{victim.address}/gradio_api/upload", files=files, timeout=60)
    assert answer.status_code == 413
    tells_nothing(answer.text, victim)
    assert not [file for file in set(victim.uploads.rglob("*")) - before if file.is_file()]


# --- others' jobs and plans -------------------------------------------------------------------------


def test_guesses_find_no_job(victim: Victim) -> None:
    from gradio_client import Client

    release = threading.Event()

    def work(report: Any, stop: Callable[[], bool]) -> str:
        while not release.wait(0.01):
            if stop():
                raise Stopped
        return "secret"

    jobs = victim.studio.jobs
    job = jobs.submit("edit", work)
    client = Client(victim.address, verbose=False)
    try:
        for guess in (job[:-1], job + "A", job[:8], job.swapcase(), "", "0", "*", "%", "../" + job, f"{job}\n", "null"):
            status = client.predict(guess, api_name="/watch")[0]
            assert status == {"state": "unknown"}, guess
            client.predict(guess, api_name="/stop")
            assert jobs.snapshot(job).state in ("waiting", "running") and not jobs.snapshot(job).stopping
    finally:
        release.set()
    assert finish(jobs, job).state == "done"


def test_a_plan_is_its_visitors_own(victim: Victim) -> None:
    """The id stands in the session, not in what is sent: sending one changes nothing.

    What only takes away or feathers one's own strokes needs no plan: it is sent two states, and at most a slider. Nor
    does what leaves a video, which is sent the jobs of the tab.
    """
    of_ones_own = ["state", "state"], ["state", "state", "slider"], ["state"] * 3
    from helpers.plans import small_plan
    from webui.jobs.tasks import Request

    stolen = victim.studio.kept.store_plan(Request("a.mp4", small_plan().config), small_plan())
    refused = 0
    for event, types in victim.dependencies():
        if types[:1] == ["state"] and "textbox" not in types and len(types) > 1 and types not in of_ones_own:
            said = victim.call(event, [stolen, *[1] * (len(types) - 1)])
            assert failed(said)
            refused += "There is no plan yet" in said
    assert refused >= 2, "tokens and frame"


# --- models -----------------------------------------------------------------------------------------


@with_model
@pytest.mark.parametrize("model", ["/etc", "../../etc", str(EMBEDDED), "nobody/anything", KNOWN, "embedded@main", HTML])
def test_only_the_offered_models_are_taken(victim: Victim, model: str, tiny_folder: Callable[[str], Path]) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(victim.address, verbose=False)
    for event, data in (("/choose_model", [model]), ("/check_prompt", ["a red ball", model])):
        with pytest.raises(AppError) as refused:
            client.predict(*data, api_name=event)
        tells_nothing(str(refused.value).replace(model, ""), victim)
    for ask in (victim.studio.load, victim.studio.profile, lambda name: victim.studio.prompt_problems("a ball", name)):
        with pytest.raises(AdaFlowError, match="not offered"):
            ask(model)


def test_a_models_folder_is_known_by_its_name(tmp_path: Path) -> None:
    from webui.studio import Studio

    (tmp_path / "private" / "my-model").mkdir(parents=True)
    path = str(tmp_path / "private" / "my-model")
    assert Studio(path, "cpu", tmp_path, public=True).models == ("my-model",)
    assert Studio(path, "cpu", tmp_path).models == (path,), "at home it is the path that repeats an edit"


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("HERE/x.safetensors", "x.safetensors"),
        ("~/private/x.safetensors", "x.safetensors"),
        ("HERE/my-model --lora=HERE/l.safetensors", "my-model --lora=l.safetensors"),
        (
            "HERE/my-model --lora=HERE/l.safetensors=0.5 --vae=HERE/x.safetensors --embedding=HERE/x.safetensors=<w>",
            "my-model --lora=l.safetensors=0.5 --vae=x.safetensors --embedding='x.safetensors=<w>'",
        ),
        ("somebody/model --lora=somebody/lora=0.5", "somebody/model --lora=somebody/lora=0.5"),
    ],
)
def test_models_of_files_are_known_by_their_names(model: str, label: str, tmp_path: Path) -> None:
    from webui.studio import Studio

    (tmp_path / "my-model").mkdir()
    (tmp_path / "x.safetensors").touch()
    source = model.replace("HERE", str(tmp_path))
    studio = Studio(source, "cpu", tmp_path, [source.replace("/x.", "/other/x.")], public=True)
    assert studio.model == label and studio._sources[label] == source
    assert str(tmp_path) not in " ".join(studio.models)


def test_models_of_one_name_stay_apart(tmp_path: Path) -> None:
    from webui.studio import Studio

    files = [str(tmp_path / folder / "x.safetensors") for folder in "abc"]
    studio = Studio(files[0], "cpu", tmp_path, files, public=True)
    assert [studio._sources[label] for label in studio.models] == files and studio.model == "x.safetensors"


# --- words ------------------------------------------------------------------------------------------


@with_model
def test_html_in_what_visitors_type_is_shown_as_text(victim: Victim, drawn_clip: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    finish(victim.studio.jobs, victim.studio.load())
    client = Client(victim.address, verbose=False)
    said = client.predict(f"a red {HTML} ball", api_name="/check_prompt")
    assert "onerror" in said and "<img" not in said and "<script" not in said
    for changes in ({"frames": HTML}, {"frames": f"{HTML}:5"}):
        with pytest.raises(AppError) as refused:
            client.predict(handle_file(str(drawn_clip)), "", api_name="/preview", **changes)
        assert "<img" not in str(refused.value) and "&lt;img" in str(refused.value)


GARBAGE: list[Any] = [None, float("nan"), {"path": "/etc/passwd"}, "../../etc\0"]


@pytest.mark.slow
@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.thorough)])
def test_garbage_ends_in_a_sentence_or_nothing(victim: Victim, each: int) -> None:
    """Every `each`th event with wrong types, numbers out of range and, in some turns, too few values."""
    for number, (event, types) in list(enumerate(victim.dependencies()))[::each]:
        for value in GARBAGE if each == 1 else GARBAGE[number // each % len(GARBAGE) :][:1]:
            said = victim.call(event, [value] * len(types))
            if '"success":true' not in said.replace(" ", ""):  # a result tells where Gradio keeps what it serves
                tells_nothing(said, victim)
        if each == 1 or number % 4 == 0:
            tells_nothing(victim.call(event, []), victim)
    for body in (b"", b"{", b"[]", b'{"data": 1}', b'{"fn_index": 99999, "data": [], "session_hash": "x"}', b"\xff"):
        kind = {"content-type": "application/json"}
        answer = httpx.post(f"{victim.address}/gradio_api/queue/join", content=body, headers=kind, timeout=60)
        assert answer.status_code >= 400
        tells_nothing(answer.text, victim)
    assert victim.get("/healthz").json()["status"] == "ok", "and the page still stands"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/app/uploads/ab12/my clip.mp4 is not a video", "my clip.mp4 is not a video"),
        ("the cache folder /home/user/.cache/adaflow cannot be written", "the cache folder adaflow cannot be written"),
        ("cannot read 'C:\\Users\\me\\film.mp4'", "cannot read 'film.mp4'"),
        ("model 'stable-diffusion-v1-5/stable-diffusion-v1-5' at 1/2 and/or https://a.b/c", None),
        ("(/a/b/c.json), “/d/e”", "(c.json), “e”"),
    ],
)
def test_sentences_name_no_folders(text: str, told: str | None) -> None:
    from webui.messages import without_folders

    assert without_folders(text) == (told or text)


# --- who may come in --------------------------------------------------------------------------------


def test_with_a_password_nothing_answers_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio_client import Client

    from webui.serving.server import serve
    from webui.studio import Studio

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    server = serve(Studio("embedded", "cpu", tmp_path), tmp_path / "uploads", password=("me", "open sesame"))
    try:
        for path in ("/config", "/gradio_api/info", f"/gradio_api/file={tmp_path}/uploads/x", "/monitoring/summary"):
            assert httpx.get(server.address + path, timeout=60).status_code == 401, path
        for path, body in (("queue/join", {"json": {}}), ("upload", {"files": {"files": b"x"}}), ("call/watch", {})):
            assert httpx.post(f"{server.address}/gradio_api/{path}", timeout=60, **body).status_code == 401, path
        wrong = httpx.post(f"{server.address}/login", data={"username": "me", "password": "open"}, timeout=60)
        assert wrong.status_code == 400 and "sesame" not in wrong.text
        assert '"components":[],"dependencies":[]' in httpx.get(server.address, timeout=60).text
        assert httpx.get(f"{server.address}/healthz", timeout=60).json()["status"] == "ok", (
            "for the container's own look"
        )
        assert Client(server.address, auth=("me", "open sesame"), verbose=False).predict("x", api_name="/watch")
    finally:
        server.close()


# --- checkpoints ------------------------------------------------------------------------------------


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


PARTS = {
    "unet": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "vae": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "text_encoder": ("model.safetensors", "pytorch_model.bin"),
}


@pytest.mark.parametrize("part", PARTS)
def test_pickled_weights_are_never_opened(part: str, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "sprung"
    shutil.copytree(tiny_folder("sd1"), folder)
    safe, pickled = PARTS[part]
    (folder / part / safe).unlink()
    torch.save({"weight": Trap(mark)}, folder / part / pickled)
    with pytest.raises(AdaFlowError, match="safetensors"):
        load_backbone(str(folder), device="cpu")
    (folder / part / safe).write_bytes(pickle.dumps(Trap(mark)))  # under the name of a harmless one
    with pytest.raises(AdaFlowError):
        load_backbone(str(folder), device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("part", ["unet", "text_encoder", "scheduler"])
def test_a_checkpoints_own_code_is_never_run(part: str, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "sprung"
    shutil.copytree(tiny_folder("sd1"), folder)
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Evil:\n    pass\n"
    for place in (folder, folder / part):
        (place / "evil.py").write_text(code)
        (place / "pipeline.py").write_text(code)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {part: ["evil", "Evil"], "_class_name": "Evil"}))
    with pytest.raises(AdaFlowError):
        load_backbone(str(folder), device="cpu")
    assert not mark.exists()


@with_model
def test_strangers_cannot_fill_the_memory_by_settings(victim: Victim, drawn_clip: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    from webui.settings import asked_values

    client, clip = Client(victim.address, verbose=False), handle_file(str(drawn_clip))
    for size in ("1024", "4096x4096"):
        with pytest.raises(AppError, match="works at up to 768 pixels"):
            client.predict(clip, "", side=size, api_name="/preview")
    profile, shown = victim.studio.profile(), {"max_keyframes": 10_000, "chunk": 4096}
    assert asked_values(tuple(shown), profile, tuple(shown.values()), public=True) == dict.fromkeys(shown)
    assert asked_values(tuple(shown), profile, tuple(shown.values())) == shown, "at home they are taken"
