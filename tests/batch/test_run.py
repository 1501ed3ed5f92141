"""A batch does what is missing and nothing else, whatever ended the last run; the same with Ray and without."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adaflow_core.batch import run as batch
from adaflow_core.batch.files import Storage
from adaflow_core.batch.manifest import Clip
from adaflow_core.batch.pool import InTurn
from adaflow_core.batch.run import run, tasks_of
from adaflow_core.batch.table import gather
from adaflow_core.batch.task import Job, Outcome
from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Progress
from helpers.batches import CLIPS, METHODS, Length, clip, needs_model


@dataclass(frozen=True)
class Failing(Length):
    """One that ends before it has said anything."""

    def score(self, clip: Clip, prompt: str, source: Path, edited: Path) -> dict[str, Any]:
        raise RuntimeError("out of memory")


def stamps(job: Job, folder: str) -> dict[str, int]:
    root = Path(job.out)
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.glob(f"{folder}/**/*.json")}


@needs_model
def test_only_what_is_missing_is_done(job: Job) -> None:
    clips, lines = [clip("one"), clip("two")], []
    first = run(job, clips, METHODS, say=lines.append)
    assert (first.made, first.kept, first.problems) == (8, 0, {}) and len(lines) == 5
    rows = stamps(job, "rows")
    assert len(rows) == len(stamps(job, "scores")) == 8

    # Cut off: a row is missing, another has lost its scores, a third was begun.
    root = Path(job.out)
    (root / "rows/one/style/adaflow.json").unlink()
    (root / "scores/two/style/per-frame.json").unlink()
    (root / "rows/two/style/.adaflow.json.0123.part").write_text("{")
    second = run(job, clips, METHODS, say=lines.append)
    assert (second.made, second.kept) == (1, 6)
    after = stamps(job, "rows")
    assert after.keys() == rows.keys() and [k for k in rows if after[k] != rows[k]] == ["rows/one/style/adaflow.json"]
    assert len(stamps(job, "scores")) == 8

    # The table holds each edit once, with its settings, versions and scores.
    table = [json.loads(line) for line in (root / "table.jsonl").read_text().splitlines()]
    assert sorted(row["key"] for row in table) == sorted(k[len("rows/") : -len(".json")] for k in rows)
    assert all(row["scores"]["bytes"] == (root / row["video"]).stat().st_size for row in table)
    assert all({"agreement", "untouched"} <= set(row["scores"]) and row["versions"]["torch"] for row in table)
    assert {row["settings"]["edit"]["steps"] for row in table} == {1}
    shared = [row["inversion_reused"] for row in table if row["clip"] == "two"]
    assert sum(shared) >= 3, "a clip's edits share its inversion"

    # Nothing is left to do.
    third = run(job, clips, METHODS, say=lines.append)
    assert (third.made, third.kept) == (0, 8) and stamps(job, "rows") == after and len(third.rows) == 8
    assert third.asked == third.rows
    assert {row["clip"] for row in run(job, clips[:1], METHODS, say=lines.append).asked} == {"one"}


@pytest.mark.thorough
@needs_model
def test_other_settings_and_other_scorers_are_done_anew(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"adaflow": METHODS["adaflow"]}
    run(job, [clip("one")], one, say=lambda _: None)
    rows, scores = stamps(job, "rows"), stamps(job, "scores")
    run(replace(job, scorer=Length(version=2)), [clip("one")], one, say=lambda _: None)
    assert stamps(job, "rows") == rows and all(stamps(job, "scores")[k] != v for k, v in scores.items())
    other = {"adaflow": (PlanConfig(keyframes=1), EditConfig(steps=1, seed=5))}
    done = run(job, [clip("one")], other, say=lambda _: None)
    assert done.made == 2 and len(done.rows) == 2 and {row["seed"] for row in done.rows} == {5}

    # A run that ended between an edit and its score: the score is of the edit before, and counts for nothing.
    again = {"adaflow": (PlanConfig(keyframes=1), EditConfig(steps=1, seed=6))}
    failing = replace(job, scorer=Failing())
    with monkeypatch.context() as patch:  # an upload fails
        patch.setattr(Storage, "put", lambda *_: (_ for _ in ()).throw(AdaFlowError("no network")))
        failed = run(failing, [clip("one")], again, say=lambda _: None)
        assert len(failed.problems) == len(failed.rows) == 2 and not failed.asked, "rows are of other settings"
    rows_made = run(failing, [clip("one")], again, say=lambda _: None).rows
    assert rows_made[0]["scored_with"] is None
    assert [row["resumed_at_step"] for row in rows_made] == [1, 1], "what was not filed is not made again"
    done = run(job, [clip("one")], again, say=lambda _: None)
    assert (done.made, done.kept) == (0, 0) and all(row["scored_with"] for row in done.rows)


@needs_model
def test_a_clip_that_fails_does_not_end_the_others(job: Job, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video\n" * 40)
    bad = [clip("gone", video="nowhere.mp4"), clip("text", video=str(tmp_path / "text.mp4")), clip("rate", fps=12)]
    lines: list[str] = []
    done = run(job, [*bad, clip("one")], {"adaflow": METHODS["adaflow"]}, say=lines.append)
    assert done.made == 2 and len(done.rows) == 2 and len(done.problems) == 6
    assert "ball.mp4 has its own rate; leave it out" in done.problems["rate/style/adaflow"]
    assert "does not exist" in done.problems["gone/style/adaflow"]
    assert "not a video" in done.problems["text/style/adaflow"]
    assert json.loads((Path(job.out) / "problems.json").read_text()) == done.problems
    assert any("failed" in line for line in lines)


@needs_model
def test_the_stop_signal_ends_a_batch_with_its_table(job: Job) -> None:
    ended: list[str] = []
    with pytest.raises(Stopped):
        run(job, [clip("one"), clip("two")], METHODS, say=ended.append, stop=lambda: len(ended) > 1)
    assert len((Path(job.out) / "table.jsonl").read_text().splitlines()) == 2


@needs_model
def test_the_command_edits_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, frames = tmp_path / "m.jsonl", tmp_path / "frames"
    frames.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (200, 0, 0)).save(frames / f"{number}.png")
    lines: list[dict[str, Any]] = [
        {"id": "a", "video": "frames", "fps": 12, "prompt": "a blue ball on marzipan"},
        {"id": "b", "video": str(CLIPS / "ball.mp4"), "prompt": "a blue ball"},
    ]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    command = [
        "batch", str(manifest), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--device", "cpu",
        "--frames", "0:2", "--size", "64x64", "--steps", "1", "--method", "per-frame", "--limit", "1",
    ]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "1 edit made" in printed.out and "nothing says what is in 1 clip" in printed.err
    assert re.search(r"1/1 a by per-frame: 1 edit in .*\n(  note: .*\n)*  note: a/0/per-frame: .*marzipan", printed.err)
    assert (tmp_path / "out/videos/a/0/per-frame.mp4").is_file() and not (tmp_path / "out/videos/b").exists()
    assert json.loads((tmp_path / "out/rows/a/0/per-frame.json").read_text())["fps"] == 12
    # A preset's edits do not take the place of the default's.
    assert main([*command, "--preset", "fast"]) == 0
    assert "1 edit made" in capsys.readouterr().out
    assert (tmp_path / "out/videos/a/0/fast-per-frame.mp4").is_file()


def test_edits_that_are_there_have_not_failed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job, one = replace(job, scorer=None), {"adaflow": METHODS["adaflow"]}
    moved = clip("one", video="memory://gone.mp4", prompts=dict.fromkeys("abc", "a blue ball"))
    task = next(tasks_of([moved], one, 1))

    def make(prompt: str) -> None:
        row = {"digest": task.digest(prompt, job), "scores": {}}
        Storage(job.out).write_json(f"rows/{task.key(prompt)}.json", row)

    class Pool(InTurn):
        def map(self, work: Any, tasks: Any, stop: Any) -> Any:  # type: ignore[override]
            for task in tasks:
                make("b")
                yield task, RuntimeError("the worker died after b")

    make("a")
    assert run(job, [moved], one, say=lambda _: None).problems.keys() == {"one/b/adaflow", "one/c/adaflow"}
    monkeypatch.setattr(batch, "RayPool", lambda *_, **__: Pool())
    assert run(job, [moved], one, ray="local", say=lambda _: None).problems.keys() == {"one/c/adaflow"}


def test_a_damaged_row_or_score_is_a_missing_one(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = dict.fromkeys(("whole", "empty", "torn", "list", "bare", "score"), "a blue ball")
    task = next(tasks_of([clip("one", prompts=prompts)], {"adaflow": METHODS["adaflow"]}, 1))
    asked: list[str] = []
    monkeypatch.setattr(batch, "perform", lambda task, job, **_: asked.append("made") or Outcome())

    def there(say: Callable[[str], None]) -> int:
        return run(job, [task.clip], {"adaflow": METHODS["adaflow"]}, say=say).kept

    for prompt in prompts:
        row = {"digest": (digest := task.digest(prompt, job)), "scores": {}}
        Storage(job.out).write_json(f"rows/{task.key(prompt)}.json", row)
        score = {"with": Length().identity(), "edit": digest}
        Storage(job.out).write_json(f"scores/{task.key(prompt)}.json", score)
    assert there(lambda _: None) == 6 and not asked
    out, told = Path(job.out), list[str]()
    for prompt, content in (("empty", b""), ("torn", b'{"digest": "\xff'), ("list", b"[]"), ("bare", b"{}")):
        (out / f"rows/{task.key(prompt)}.json").write_bytes(content)
    (out / f"scores/{task.key('score')}.json").write_bytes(b"{")
    assert there(told.append) == 1 and asked == ["made"]
    assert sum("is damaged, and counts as missing" in line for line in told) == 5
    assert [row["digest"] for row in gather(Storage(job.out))] == [task.digest(p, job) for p in ("score", "whole")]
    assert Storage(job.out).find_json(f"rows/{task.key('torn')}.json") is None


def test_a_run_that_is_stopped_says_what_failed_in_it(job: Job) -> None:
    Storage(job.out).write_json("problems.json", {"zero/style/adaflow": "of the run before"})
    lines: list[str] = []
    moved = [clip(name, video="memory://gone.mp4", prompts={"style": "a blue ball"}) for name in ("one", "two")]
    with pytest.raises(Stopped):
        run(job, moved, {"adaflow": METHODS["adaflow"]}, say=lines.append, stop=lambda: len(lines) > 1)
    assert Storage(job.out).find_json("problems.json").keys() == {"one/style/adaflow"}


def test_workers_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have another working directory. What is no path here is left as it is."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "embedded"):
        (tmp_path / name).mkdir()
    (tmp_path / "pixel.safetensors").touch()
    given: list[Job] = []
    monkeypatch.setattr(batch, "perform", lambda task, job, **_: given.append(job) or Outcome())
    job = Job(out="out", cache="cache", model="./model --lora=pixel.safetensors=0.8 --vae=owner/name")
    run(job, [clip("one")], {"adaflow": METHODS["adaflow"]}, say=lambda _: None)
    model = f"{tmp_path}/model --lora={tmp_path}/pixel.safetensors=0.8 --vae=owner/name"
    assert given == [Job(out=str(tmp_path / "out"), cache=str(tmp_path / "cache"), model=model)]
    assert (tmp_path / "out/problems.json").exists()
    bucket = Job(out="s3://bucket/out", model="embedded --lora=owner/name=0.5")
    assert bucket.absolute() == bucket


def test_progress_with_ray_counts_what_is_done_and_no_row_of_other_settings(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool(InTurn):
        width = 1

        def map(self, work: Any, tasks: Any, stop: Any) -> Any:  # type: ignore[override]
            for task in tasks:
                yield None
                yield task, Outcome(made=2)
            yield None

    monkeypatch.setattr(batch, "RayPool", lambda *_, **__: Pool())
    Storage(job.out).write_json("rows/one/style/adaflow.json", {"digest": "of other settings", "scores": {}})
    told: list[Progress] = []
    run(job, [clip("one"), clip("two")], METHODS, ray="local", progress=told.append, say=lambda _: None)
    assert [(p.done, p.total) for p in told] == [(0, 8), (2, 8), (4, 8), (6, 8), (8, 8)]


def test_bad_input_to_a_batch_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "m.jsonl"
    table, settings = tmp_path / "table.jsonl", tmp_path / "problems.json"
    for file in (manifest, table):
        file.write_text('{"video": "nowhere.mp4", "source_prompt": "a dog", "prompt": "a cat"}')
    settings.write_text('{"edit": {"steps": 2}}')
    for arguments, names in (
        (["batch", str(tmp_path / "none.jsonl")], "none.jsonl"),
        (["batch", str(manifest), "--frames", "x"], "frame range"),
        *((["batch", str(manifest), "--gpus-per-task", share], share) for share in ("-1", "nan", "0.00001", "1.5")),
        (["batch", str(table), "--out", str(tmp_path)], "is the manifest itself"),
        (
            ["batch", str(manifest), "--settings", str(settings), "--out", str(tmp_path)],
            "the file of --settings itself",
        ),
        (["batch", str(manifest), "--out", str(tmp_path / "out")], "problems.json"),
    ):
        assert main(arguments) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("adaflow:")]
        assert len(told) == 1 and names in told[0]


def test_workers_get_different_clips() -> None:
    clips = [clip(name) for name in "abcde"]
    order = [(task.clip.id, task.method) for task in tasks_of(clips, METHODS, 2)]
    assert order[:4] == [("a", "adaflow"), ("b", "adaflow"), ("a", "per-frame"), ("b", "per-frame")]
    assert len(order) == len(set(order)) == 10
    assert next(tasks_of(clips, METHODS, 2)).plan.source_prompt == "a red ball"
