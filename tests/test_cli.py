"""The command line: what it writes, and that bad input ends with one line that names the remedy."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import av
import numpy as np
import pytest

from adaflow_core.cli import _edit_config, _plan_config, main, parser
from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, resolve_edit, resolve_plan
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.report.export import edit_command

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
        (["edit", str(CLIP)], "--prompt"),
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


def test_plan_writes_json_arrays_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan"
    arguments = ["plan", str(CLIP), "--frames", "0:8", "--keyframes", "3", "--prune", "0.5", "--out", str(out)]
    assert main(arguments) == 0
    plan = json.loads((out / "plan.json").read_text())
    assert plan["frames"] == 8 and len(plan["keyframes"]) == 3 and plan["kept_ratio"] == 0.5
    assert plan["forecast"]["seconds"]["total"] > 0
    arrays = np.load(out / "plan.npz")
    assert arrays["mask_32x32"].shape == arrays["scores_32x32"].shape == (3, 3, 1024)
    assert np.isclose(arrays["mask_32x32"].mean(), 0.5, atol=1e-3)
    assert {"keyframes.png", "timeline.png", "time_slice.png"} <= {path.name for path in out.iterdir()}
    assert len(list(out.glob("tokens_*.png"))) == 3
    assert "3 keyframes for 8 frames" in capsys.readouterr().out


def test_edit_writes_a_video_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "edit.mp4", tmp_path / "deep" / "report.json"
    arguments = [
        "edit", str(CLIP), "--frames", "0:6", "--keyframes", "2", "--steps", "2", "--seed", "7",
        "--source-prompt", "a red ball", "--prompt", "a blue ball on marzipan",
        "--out", str(out), "--report", str(report),
    ]  # fmt: skip
    assert main(arguments) == 0
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
    assert set(data["scores"]) == {"agreement", "untouched", "liveliness"} and 0 <= data["scores"]["agreement"] <= 1
    assert data["seed"] == 7 and data["settings"]["edit"]["steps"] == 2 and data["seconds"]["edit"] > 0


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
    resolved = resolve_plan(plan, profile, "cpu"), resolve_edit(edit, profile, plan.source_prompt)
    line = edit_command(
        "a clip.mp4", 'a "blue" ball', *resolved, profile, model="embedded", device="cpu",
        size=(256, 192), frames=slice(2, None),
    )  # fmt: skip
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "adaflow_core", "edit"]
    arguments = parser().parse_args(words[3:])
    assert (arguments.prompt, arguments.size, arguments.frames) == ('a "blue" ball', "256x192", "2:")
    assert arguments.video == Path("a clip.mp4")
    read = _plan_config(arguments), _edit_config(arguments)
    assert resolve_plan(read[0], profile, "cpu") == resolved[0]
    assert resolve_edit(read[1], profile, plan.source_prompt) == resolved[1]


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "embedded" in capsys.readouterr().out
