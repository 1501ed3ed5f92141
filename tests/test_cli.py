"""The command line: what it writes, and that bad input ends with one line that names the remedy."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from adaflow_core.cli.arguments import edit_config, parser, plan_config
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.batches import run_batch
from adaflow_core.cli.editing import _compared
from adaflow_core.cli.main import main
from adaflow_core.cli.planning import load
from adaflow_core.config import (
    METHODS,
    PRESETS,
    EditConfig,
    ModelProfile,
    PlanConfig,
    Setting,
    as_flags,
    resolve_edit,
    resolve_plan,
    settings_dict,
    settings_of,
)
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.project import Project
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.progress import Progress
from adaflow_core.report.export import edit_command
from adaflow_core.storage.cache import Cache

LONG = 300 * "a"
CLIP = EMBEDDED.parent / "clips" / "ball.mp4"
pytestmark = pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not in assets/")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path_factory.getbasetemp() / "cli-cache"))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["plan", "nowhere.mp4"], "nowhere.mp4"),
        (["plan", "TEXT"], "not a video"),
        (["edit", str(CLIP), "--prompt", " "], "prompt"),
        (["plan", str(CLIP), "--prompt", " "], "prompt"),
        (["edit", str(CLIP)], "--prompt"),
        (["edit", str(CLIP), "--prompt", "0:4 a ball", "--prompt", "a cube"], "does not begin with its range"),
        (["edit", str(CLIP), "--prompts", "none.json"], "none.json"),
        (["retake", "none.json", "--frames", "0:4"], "none.json"),
        (["edit", str(CLIP), "--prompt", "a ball", "--model", "./no-such-folder"], "model"),
        (["plan", str(CLIP), "--prune", "2"], "prune"),
        (["plan", str(CLIP), "--prune", "0.5", "--kv-frames", "3"], "--kv-frames"),
        (["plan", str(CLIP), "--keyframes", "many"], "keyframes"),
        (["plan", str(CLIP), "--scales", "3"], "scales"),
        (["plan", str(CLIP), "--size", "12"], "size"),
        (["plan", str(CLIP), "--frames", "x"], "frame range"),
        (["plan", str(CLIP), "--frames", "90:99"], "frames"),
        (["edit", str(CLIP), "--prompt", "a ball", "--steps", "0"], "steps"),
        (["edit", str(CLIP), "--prompt", "a ball", "--guidance", "nan"], "guidance"),
        (["plan", str(CLIP), "--device", "abacus"], "device"),
        (["bogus"], "bogus"),
        (["edit", str(CLIP), "--promt", "a ball"], "there is no --promt; did you mean --prompt?"),
        (["edit", str(CLIP), "--colour=red"], "there is no --colour"),
        (["plan", str(CLIP), "--scales", ""], "scales"),
        (["edit", "--project", "nope.json"], "there is no project nope.json"),
        (["edit", str(CLIP), "--project", "nope.json"], "there is no project nope.json"),
        (["plan", str(CLIP), "--frames", ""], "argument --frames: it is empty"),
        (["edit", str(CLIP), "--prompt", "a ball", "--size", ""], "argument --size: it is empty"),
        (["edit", str(CLIP), "--prompt", "a ball", "--region", ""], "argument --region: it is empty"),
        (["plan", str(CLIP), "--model", ""], "argument --model: it is empty"),
        (["batch", "none.jsonl", "--ray", "local", "--workers", "-1"], "'-1' is no whole number from 1 on"),
        (["batch", "none.jsonl", "--limit", "-1"], "'-1' is no whole number from 1 on"),
        (["batch", "none.jsonl", "--retries", "-1"], "'-1' is no whole number from 0 on"),
        (["batch", "none.jsonl", "--cache-gb", "nan"], "'nan' is no number above 0"),
        (["edit", str(CLIP), "--prompt", "a ball", "--draft", "--compare", "low_memory=no"], "true or false"),
        # Names too long for a path, and users that are not there.
        (["plan", str(CLIP), "--model", LONG], "there is no model"),
        (["plan", str(CLIP), "--model", "~nosuchuser/model"], "there is no model"),
        (["plan", str(CLIP), "--lora", "~nosuchuser/lora.safetensors"], "is not there"),
        (["plan", str(CLIP), "--lora", f"./{LONG}.safetensors"], "is not there"),
        (["plan", str(CLIP), "--vae", "~nosuchuser/vae"], "is not there"),
        (["plan", str(CLIP), "--embedding", f"./{LONG}"], "is not there"),
        (["edit", str(CLIP), "--prompt", "a ball", "--project", f"{LONG}.json"], "cannot write"),
        (["edit", "--project", f"{LONG}.json"], "there is no project"),
        (["edit", str(CLIP), "--prompt", "a ball", "--mask", f"{LONG}.png"], "cannot be opened"),
        (["edit", str(CLIP), "--prompt", "a ball", "--draft", "--out", f"{LONG}/edit.mp4"], "cannot write"),
        (["batch", f"{LONG}.jsonl"], "cannot be read"),
        (["batch", "~nosuchuser/manifest.jsonl"], "does not exist"),
    ],
)
def test_bad_input_ends_with_one_line(
    arguments: list[str], names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 40)
    arguments = [str(text) if argument == "TEXT" else argument for argument in arguments]
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("adaflow:")]
    assert len(lines) == 1 and lines[0].startswith("adaflow: error: ") and names in lines[0]


def test_a_missing_file_leaves_no_folder(tmp_path: Path) -> None:
    for command in (["plan"], ["edit", "--prompt", "a ball"]):
        out = tmp_path / command[0] / ("edit.mp4" if command[0] == "edit" else "plan")
        assert main([*command, str(tmp_path / "nowhere.mp4"), "--out", str(out)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_not_written_over_what_it_is_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, settings = tmp_path / "frames", tmp_path / "plan.json"
    frames.mkdir()
    for name in ("0.png", "1.png"):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(frames / name)
    settings.write_text('{"plan": {"prune": 0.5}}')
    for arguments, names in (
        ([str(frames), f"--out={frames}"], "would be one of the pictures of the source"),
        ([str(frames), f"--settings={settings}", f"--out={tmp_path}"], "is the file of --settings itself"),
    ):
        assert main(["plan", *arguments, "--model=./no-such-folder"]) == 2
        assert names in capsys.readouterr().err
    assert sorted(path.name for path in frames.iterdir()) == ["0.png", "1.png"]


def test_help_says_what_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m adaflow_core plan")


def test_plan_writes_json_arrays_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan"
    arguments = ["plan", str(CLIP), "--size", "128x128", "--frames", "0:8", "--keyframes", "3", "--prune", "0.5"]
    assert main([*arguments, "--out", str(out)]) == 0
    plan = json.loads((out / "plan.json").read_text())
    assert plan["frames"] == 8 and len(plan["keyframes"]) == 3 and plan["kept_ratio"] == 2 / 3
    assert plan["forecast"]["seconds"]["total"] > 0
    arrays = np.load(out / "plan.npz")
    assert arrays["mask_16x16"].shape == arrays["scores_16x16"].shape == (3, 3, 256)
    assert np.isclose(arrays["mask_16x16"].mean(), 2 / 3, atol=1e-3)
    assert {"keyframes.png", "timeline.png", "time_slice.png"} <= {path.name for path in out.iterdir()}
    assert len(list(out.glob("tokens_*.png"))) == 3
    assert "3 keyframes for 8 frames" in capsys.readouterr().out
    assert not (out / "place.png").exists()


def test_plan_with_a_prompt_shows_where_it_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, out = tmp_path / "settings.json", tmp_path / "plan"
    settings.write_text('{"edit": {"focus": 1.0}}')
    arguments = ["plan", str(CLIP), "--frames", "0:4", "--keyframes", "2", "--source-prompt", "a red ball in a meadow"]
    arguments += ["--prompt", "a blue ball in a meadow", "--settings", str(settings), "--out", str(out)]
    assert main(arguments) == 0
    assert re.search(r"Changes here: \d+% of the picture; shape is kept\.", capsys.readouterr().out)
    with Image.open(out / "place.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize("command", [["plan", str(CLIP)], ["edit", str(CLIP)], ["retake", "a.json", "--frames", "0:4"]])
def test_a_command_says_how_large_the_cache_may_grow(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdaFlow, "from_pretrained", lambda *_, **given: given["cache"])
    with closing(Bar()) as bar:
        limits = [load(parser().parse_args(given), bar, None) for given in (command, [*command, "--cache-gb", "0.5"])]
    assert [cache.limit_bytes for cache in limits] == [Cache.default().limit_bytes, 2**29]  # type: ignore[attr-defined]


def test_edit_writes_a_video_and_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report = tmp_path / "edit.mp4", tmp_path / "deep" / "report.json"
    arguments = [
        "edit", str(CLIP), "--size", "128x128", "--frames", "0:6", "--keyframes", "2", "--steps", "2", "--seed", "7",
        "--source-prompt", "a red ball", "--prompt", "a blue ball on marzipan",
        "--out", str(out), "--report", str(report),
    ]  # fmt: skip
    states = set(Cache.default().root.glob("edits/*.zip"))

    def stopped(*_: object, **__: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(AdaFlow, "score", stopped)
        assert main(arguments) == 130 and out.exists()
    capsys.readouterr()
    assert main(arguments) == 0
    assert set(Cache.default().root.glob("edits/*.zip")) == states, "no longer needed"
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out) and "marzipan" in printed.err
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 12 and sum(1 for _ in container.decode(stream)) == 6
    data = json.loads(report.read_text())
    assert {
        "frames", "width", "height", "fps", "segments", "keyframes", "kept_ratio", "tokens_full", "tokens_kept",
        "seconds", "peak_memory_bytes", "settings", "seed", "model", "version",
    } <= set(data)  # fmt: skip
    assert {"agreement", "untouched", "liveliness", "flicker", "edge_error", "rims"} <= set(data["scores"])
    assert 0 <= data["scores"]["agreement"] <= 1
    assert data["seed"] == 7 and data["settings"]["edit"]["steps"] == 2 and data["seconds"]["edit"] > 0
    assert data["resumed_at_step"] == 2, "what was stopped before its report was there is not made again"


@pytest.mark.parametrize(
    ("plan", "edit"),
    [
        (PlanConfig(), EditConfig()),
        (PlanConfig(source_prompt="-a 'red' ball", prune=0.3, keyframes=5, scales=(2,)), EditConfig(seed=4)),
        (PlanConfig(kv_frames=3.0, method="uniform", importance="uniform"), EditConfig(steps=20, guidance=4.0)),
        (PlanConfig(source_prompt="a car"), EditConfig(steps=4, inversion_steps=8, negative_prompt="", detail=0.5)),
    ],
)
def test_the_command_that_is_shown_repeats_the_edit(plan: PlanConfig, edit: EditConfig) -> None:
    profile = ModelProfile.load(EMBEDDED)
    assert profile is not None
    resolved = resolve_plan(plan, profile, "cpu"), resolve_edit(edit, profile, plan)
    line = edit_command(
        "a clip.mp4", 'a "blue" ball', *resolved, profile, model="embedded", device="cpu",
        dtype="float32", size=(256, 192), frames=slice(2, None),
    )  # fmt: skip
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "adaflow_core", "edit"]
    arguments = parser().parse_args(words[3:])
    assert (arguments.prompt, arguments.size, arguments.frames) == (['a "blue" ball'], "256x192", "2:")
    assert (arguments.video, arguments.dtype) == (Path("a clip.mp4"), "float32")
    read = plan_config(arguments), edit_config(arguments)
    assert resolve_plan(read[0], profile, "cpu") == resolved[0]
    assert resolve_edit(read[1], profile, plan) == resolved[1]


TEXTS = [
    "",
    "a red ball",
    "-x --steps=3",
    'it\'s "quoted" $HOME; \\',
    "two\nlines",
    "ein schöner Tag ☀",
    "auto",
    "=",
    " a ",
]


def draw(setting: Setting, chance: random.Random) -> Any:
    """A value that the setting may have."""
    if setting.optional and chance.random() < 0.4:
        return None
    if setting.several:
        return tuple(chance.sample(setting.choices, chance.randint(1, len(setting.choices))))
    if setting.choices:
        return chance.choice(setting.choices)
    if setting.kind is bool:
        return chance.random() < 0.5
    if setting.kind is str:
        return chance.choice(TEXTS)
    assert setting.low is not None and setting.high is not None
    if setting.kind is int:
        return chance.choice([setting.low, setting.high, chance.randint(int(setting.low), int(setting.high))])
    return chance.choice([setting.low, setting.high, chance.uniform(setting.low, setting.high)])


def draw_configs(chance: random.Random, profile: ModelProfile) -> tuple[PlanConfig, EditConfig]:
    plan, edit = ({n: draw(s, chance) for n, s in settings_of(c).items()} for c in (PlanConfig, EditConfig))
    plan[chance.choice(["prune", "kv_frames"])] = None
    plan["keyframes_at"] = chance.choice(["", "7", "3,10,17", " 0, 12"])
    if METHODS[plan["method"]].spacing == "every frame":
        plan["keyframes_at"] = ""
    if plan["keyframes_at"]:
        plan["keyframes"] = None
    if edit["inversion_steps"] is not None:
        steps = edit["steps"] or profile.within(edit["max_steps"], None).steps
        edit["inversion_steps"] = steps * chance.randint(1, 1000 // steps)
    elif edit["steps"] is not None:  # the profile's ratio keeps the inversion in its range
        edit["steps"] = min(edit["steps"], 400)
    return PlanConfig(**plan), EditConfig(**edit)


PARSER = parser()


def parse(words: list[str]) -> tuple[PlanConfig, EditConfig]:
    arguments = PARSER.parse_args(words)
    return plan_config(arguments), edit_config(arguments)


def test_flags_say_any_settings() -> None:
    chance = random.Random(0)
    for _ in range(400):
        plan, edit = draw_configs(chance, ModelProfile())
        flags = as_flags(plan, vars(PlanConfig())) + as_flags(edit, vars(EditConfig()))
        assert parse(["edit", "a.mp4", "--prompt=b", *flags]) == (plan, edit), flags


@pytest.mark.parametrize(
    "profile", [ModelProfile(), ModelProfile(steps=10, inversion_steps=20, negative="source", guided=1.0)]
)
def test_the_command_repeats_any_edit(profile: ModelProfile) -> None:
    chance = random.Random(1)

    def resolved(plan: PlanConfig, edit: EditConfig, device: str) -> tuple[PlanConfig, EditConfig]:
        return resolve_plan(plan, profile, device), resolve_edit(edit, profile, plan)

    for _ in range(400):
        device = chance.choice(["cpu", "cuda"])
        made = draw_configs(chance, profile)
        expected = resolved(*made, device)
        for plan, edit in (made, expected):
            line = edit_command("a.mp4", "a ball", plan, edit, profile, model="embedded", device=device)
            assert resolved(*parse(shlex.split(line)[3:]), device) == expected, line


def test_how_many_keyframes_and_which_are_not_both_given(tmp_path: Path) -> None:
    def planned(*flags: str) -> PlanConfig:
        return parse(["edit", "a.mp4", "--prompt=b", *flags])[0]

    with pytest.raises(AdaFlowError, match="--keyframes-at which frames; give one of them"):
        planned("--keyframes=5", "--keyframes-at=3,10")
    assert planned("--keyframes=auto", "--keyframes-at=3,10").keyframes_at == "3,10"
    report = tmp_path / "report.json"
    report.write_text('{"plan": {"keyframes_at": "3,10"}}')
    assert planned(f"--settings={report}").keyframes_at == "3,10"
    assert planned(f"--settings={report}", "--keyframes=5") == PlanConfig(keyframes=5)
    both = PlanConfig(keyframes=5, keyframes_at="3,10")
    line = edit_command("a.mp4", "b", both, EditConfig(), ModelProfile(), model="embedded", device="cpu")
    assert "--keyframes-at=3,10" in line and "--keyframes=" not in line, "those that were set by hand decide"


def test_the_command_leaves_out_what_the_model_does_anyway() -> None:
    profile = ModelProfile()
    plan = resolve_plan(PlanConfig(), profile, "cpu")

    def command(edit: EditConfig) -> str:
        return edit_command("a.mp4", "b", plan, edit, profile, model="embedded", device="cpu")

    assert command(EditConfig()) == "python -m adaflow_core edit a.mp4 --prompt=b"
    assert command(EditConfig(guidance=profile.guidance)) == command(EditConfig())
    # What the model does unless words decide otherwise is said where it was asked for.
    assert "--injection-attention=0.5" in command(EditConfig(injection_attention=profile.injection_attention))


@pytest.mark.parametrize("command", ["plan", "edit", "batch"])
def test_help_names_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out.split()
    for config in (PlanConfig,) if command == "plan" else (PlanConfig, EditConfig):
        for name, setting in settings_of(config).items():
            if command == "batch" and name == "source_prompt":  # each clip has its own
                continue
            assert setting.flag in [word.strip(",[]") for word in shown], name
            assert setting.help.split()[0] in shown


def test_flags_stand_above_the_preset_and_the_file(tmp_path: Path) -> None:
    assert parse(["edit", "a.mp4", "--prompt=b", "--preset=paper"]) == PRESETS["paper"]
    plan, edit = parse(["edit", "a.mp4", "--prompt=b", "--preset=paper", "--prune=0.5", "--steps=20", "--no-resample"])
    assert (plan.prune, plan.kv_frames, plan.resample, plan.refinement) == (0.5, None, False, "none")
    assert (edit.steps, edit.inversion_steps, edit.guidance) == (20, None, 7.5)
    file = tmp_path / "report.json"
    file.write_text(
        json.dumps({"settings": {"plan": {"keyframes": 5, "scales": [1, 2]}, "edit": {"low_memory": True}}})
    )
    arguments = ["edit", "a.mp4", "--prompt=b", f"--settings={file}"]
    plan, edit = parse(arguments)
    assert (plan.keyframes, plan.scales, edit.low_memory) == (5, (1, 2), True)
    plan, edit = parse([*arguments, "--keyframes=auto", "--scales=1,2,4", "--no-low-memory"])
    assert (plan.keyframes, plan.scales, edit.low_memory) == (None, (1, 2, 4), False)


@pytest.mark.parametrize("command", [["plan", "none.mp4"], ["edit", "none.mp4", "--prompt=b"], ["batch", "none.jsonl"]])
def test_a_preset_does_not_contradict_the_file_of_settings(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"

    def said(preset: str, *flags: str) -> str:
        assert main([*command, f"--settings={report}", f"--preset={preset}", *flags]) == 2
        return capsys.readouterr().err

    plan, edit = PRESETS["fast"]
    settings = settings_dict(plan, resolve_edit(edit, ModelProfile(), plan))
    refused = "the file of --settings has settings of its own"
    older = json.loads(json.dumps(settings))
    del older["edit"]["max_steps"]  # written when the preset named its steps
    for each in (older, settings):
        report.write_text(json.dumps(each))
        assert refused not in said("fast") + said("default")
    told = said("tokenflow", "--stride=1") if command[0] != "plan" else said("tokenflow")
    assert f"{refused}, and those of --preset tokenflow are others" in told and "method" in told
    assert ("stride" in told) == (command[0] == "plan"), "a flag stands above both"


@pytest.mark.parametrize(("more", "inversion"), [([], None), (["--inversion-steps=40"], 40)])
def test_compared_steps_stand_above_the_preset(more: list[str], inversion: int | None) -> None:
    words = ["edit", "a.mp4", "--prompt=b", "--preset=fast", "--draft", "--compare=steps=10,20", *more]
    arguments = PARSER.parse_args(words)
    compared = _compared(arguments, None, PRESETS["fast"][1])
    assert [(label, edit.steps, edit.inversion_steps) for label, edit in compared] == [
        ("steps 10", 10, inversion),
        ("steps 20", 20, inversion),
    ]


def test_a_retake_with_other_steps_is_checked_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AdaFlowError("now it is loaded")

    monkeypatch.setattr("adaflow_core.cli.editing.load", load)
    project = tmp_path / "project.json"
    Project(CLIP, PlanConfig(), PRESETS["fast"][1], ({"frames": [0, 4], "prompt": "a ball"},)).save(project)
    words = ["retake", str(project), "--frames=0:4", f"--out={tmp_path / 'out.mp4'}", "--steps=10"]
    assert main(words) == 2 and "now it is loaded" in capsys.readouterr().err
    assert main([*words, "--inversion-steps=15"]) == 2 and "multiple of steps (10)" in capsys.readouterr().err


def test_a_batch_takes_no_gpus_for_one_film() -> None:
    arguments = PARSER.parse_args(["batch", "none.jsonl", "--gpus=2"])
    with pytest.raises(AdaFlowError, match="--gpus is for one film"):
        run_batch(arguments, [], {}, None, Bar(), lambda: False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report_two_stages(bar: Bar) -> None:
    for stage, skipped in (("decode", 0), ("edit", 2)):
        for done in range(skipped, 5):
            bar(Progress(stage, done, 4, elapsed=2.0 * (done - skipped), skipped=skipped))


def test_a_terminal_sees_stage_share_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with closing(Bar()) as bar:
        report_two_stages(bar)
        bar(Progress("write", 1, 3, elapsed=30.0))
    shown = screen.getvalue()
    assert "decode" in shown and "4/4" in shown and "1/3" in shown and "left" in shown
    assert "01:00 left" in shown  # of the last, at 30 s a unit
    assert shown.count("\n") == 3  # a line a stage; the unfinished one is ended with the bar


def test_elsewhere_a_line_tells_that_a_stage_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Bar()) as bar:
        report_two_stages(bar)
    assert capsys.readouterr().err == "decode: 8.0 s\nedit: 4.0 s\n"


@pytest.mark.parametrize(
    ("encoding", "name", "printed"),
    [
        ("utf-8", os.fsdecode(b"caf\xe9"), b"caf\xe9"),
        ("cp1252", "\u732b", rb"\u732b"),
        ("cp1252", "caf\xe9", b"caf\xe9"),
    ],
)
def test_a_path_that_the_terminal_has_no_letters_for_is_printed(
    encoding: str, name: str, printed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict"))
    plan = ["plan", str(CLIP), "--frames", "0:2", "--size", "64x64", "--keyframes", "1", "--device", "cpu"]
    assert main([*plan, "--out", str(tmp_path / name)]) == 0
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue().rstrip().endswith(printed)  # type: ignore[attr-defined]


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "embedded" in capsys.readouterr().out


def test_a_range_from_the_end_is_a_value() -> None:
    for words in (["--frames", "-4:"], ["--frames=-4:"], ["--frames", "-8:-4"]):
        assert parser().parse_args(["plan", "a.mp4", *words]).frames == words[-1].removeprefix("--frames=")
