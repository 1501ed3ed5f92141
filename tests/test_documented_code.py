"""The code in README.md and docs/ runs as it is written there: Python, the page's API, and the command line.

So do the commands of the benchmarks, and those that trained the models.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from helpers.pages import serve_page, with_model

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = sorted((ROOT / "assets").glob("*/README.md"))
FIGURES = [ROOT / "benchmarks" / name for name in ("RESULTS.md", "KINDS.md", "SPEED.md")]
BEFORE = "## How it came to that"  # from here on commands are of older commits
PUBLISHED = "http://127.0.0.1:7860"  # where the page is in the docs
TINY = ["--size=64x64", "--steps=2"]


def blocks(language: str, pages: Sequence[Path] = PAGES) -> list[Any]:
    found = []
    for page in pages:
        texts = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        name = page.name if page in PAGES else f"{page.parent.name}'s"
        found += [pytest.param(text, id=f"{name}-{number}") for number, text in enumerate(texts)]
    return found


def figures_commands() -> Iterator[tuple[str, str]]:
    """Those by which the pages of figures say that theirs are repeated, within their sentences or in blocks."""
    for page in FIGURES:
        text = page.read_text(encoding="utf-8").partition(BEFORE)[0]
        short = re.search(r'`S="([^"`]*)"`', text)
        for found in re.finditer(r"`(\$S|python\s+-m\s+benchmarks)\b([^`]*)`|^```sh\n(.*?)^```", text, re.M | re.S):
            begin, rest, block = found.groups()
            if block is None and short is not None:
                begin = begin.replace("$S", short[1])
            yield page.name, " ".join((block or begin + rest).replace("\\\n", " ").split("\n"))


def docstrings_commands() -> Iterator[tuple[str, str]]:
    """Those that the modules of the benchmarks and the drawn world show as examples in their help."""
    for path in (*sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "scenes").rglob("*.py"))):
        text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").replace("\\\n", " ")
        for line in re.findall(r"^    (python -m .*)$", text, re.M):
            yield str(path.relative_to(ROOT)), line


def commands() -> list[Any]:
    """Each command of the docs as its words, without its comment."""
    lines = [
        (block.id, line)
        for block in (*blocks("sh"), *blocks("sh", CARDS))
        for line in block.values[0].replace("\\\n", " ").splitlines()
        if line.partition("#")[0].strip()
    ]
    # Some of these stand in several places.
    lines += {line: (name, line) for name, line in (*figures_commands(), *docstrings_commands())}.values()
    return [pytest.param(shlex.split(line, comments=True), id=f"{name}: {line[:60].strip()}") for name, line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, drawn_frames: np.ndarray) -> Path:
    """What the docs take as given: a clip, and a manifest of clips."""
    from fractions import Fraction

    from adaflow_core.video.write import write_video

    folder = tmp_path_factory.mktemp("documented")
    write_video(folder / "clip.mp4", drawn_frames[:3], Fraction(12))
    row = {"video": "clip.mp4", "source_prompt": "a red ball in a meadow", "prompts": {"a": "a blue ball in a meadow"}}
    (folder / "clips.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serve_page(folder / "page") as url:
        yield url.rstrip("/")


@with_model
@pytest.mark.thorough
@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, here: Path, address: str) -> None:
    quick = code.replace(PUBLISHED, address).replace("seed=1", "seed=1, steps=2")
    assert quick != code
    exec(compile(quick, "<docs>", "exec"), {"__name__": "documented"})


@with_model
@pytest.mark.slow
@pytest.mark.parametrize("words", [p for p in commands() if str(p.id).startswith("README") and "-m" in p.values[0]])
def test_the_commands_of_the_readme_run(words: list[str], here: Path) -> None:
    from adaflow_core.cli.main import main

    assert words[:3] == [".venv/bin/python", "-m", "adaflow_core"]
    tiny = TINY[:1] if words[3] == "plan" else TINY
    assert main([*words[3:], *tiny]) == 0
    out = Path(words[words.index("--out") + 1])
    assert out.exists()


class Parsed(BaseException):
    """Its arguments were taken."""


@pytest.mark.parametrize("words", commands())
def test_every_command_takes_these_arguments(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    while words and "=" in words[0]:  # variables for the command
        words = words[1:]
    program, *rest = words
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    name = Path(program).name
    if name == "torchrun":
        name, rest = "python", rest[rest.index("-m") :]
    if name == "bash":
        assert (ROOT / rest[0]).is_file()
        return
    if name not in ("python", "python3"):
        assert name in ("pip", "hf", "cp") and (name != "pip" or (ROOT / rest[-1]).is_file())
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse(self, *given)
        raise Parsed

    if rest[0] == "-m" and rest[1] in ("venv", "pip", "pytest"):
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.chdir(ROOT)
    arguments = rest[2:] if rest[0] == "-m" else rest[1:]
    monkeypatch.setattr(sys, "argv", [rest[1] if rest[0] == "-m" else rest[0], *arguments])
    with pytest.raises(Parsed):
        if rest[0] == "-m":
            runpy.run_module(rest[1], run_name="__main__")
        else:
            runpy.run_path(rest[0], run_name="__main__")
