"""Writes the parts of docs/ that follow from the code: picture, list of files, settings: `python scripts/docs.py`.

`--check` changes nothing and prints the files that are out of date.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaflow_core.config import BY_WORDS, EditConfig, ModelProfile, PlanConfig, Setting, settings_of  # noqa: E402

DOCS = ROOT / "docs"
ENGINE = "adaflow_core"
LAYERED = (ENGINE, "webui")
PACKAGES = (*LAYERED, "scenes", "benchmarks", "scripts", "tests")
FILES = """# Every file

Written by `python scripts/docs.py` from the first lines of the docstrings. The files of `adaflow_core` and `webui` are
in the order of imports: a file imports only from those above it. [architecture.md](architecture.md) says where to
begin.

"""


# --- what the code says -----------------------------------------------------------------------------


def sources(package: str) -> list[Path]:
    """Return the files of a package, relative to the root; a folder's own files come before those of its folders."""
    paths = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
    return sorted(paths, key=lambda path: (path.parent, path.name))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def first_line(path: Path) -> str:
    """Return the first paragraph of a file's docstring as one line."""
    paragraph = (ast.get_docstring(parsed(path)) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported at run time, anywhere in `tree`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported_names(node)


@cache
def import_graph(package: str) -> dict[Path, list[Path]]:
    """File -> the files of its package that it imports, in the order of their paths."""
    files = {module_name(path): path for path in sources(package)}

    def file_of(name: str) -> Path | None:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return files.get(name)

    return {
        path: sorted({found for name in imported_names(parsed(path)) if (found := file_of(name))} - {path})
        for path in files.values()
    }


def in_import_order(package: str) -> list[Path]:
    """The files of a package with layers, each after those that it imports; folders stay together."""
    graph = import_graph(package)

    def part(path: Path) -> Path:
        return path.parent if len(path.parts) > 2 else path

    def places(edges: dict[Path, set[Path]]) -> dict[Path, int]:
        sorter, order = TopologicalSorter(edges), []
        sorter.prepare()
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            sorter.done(*ready)
            order += ready
        return {path: place for place, path in enumerate(order)}

    parts: dict[Path, set[Path]] = {}
    for path, targets in graph.items():
        parts.setdefault(part(path), set()).update({part(target) for target in targets} - {part(path)})
    outer = places(parts)
    inner = places({path: {t for t in targets if part(t) == part(path)} for path, targets in graph.items()})
    return sorted(graph, key=lambda path: (outer[part(path)], inner[path]))


# --- the list of files ------------------------------------------------------------------------------


def file_list() -> str:
    """A table for each package with a line for each file, folders in bold."""
    lines = []
    for package in PACKAGES:
        lines += [f"## {package}", "", "| file | |", "|---|---|"]
        folder = Path(package)
        for path in in_import_order(package) if package in LAYERED else sources(package):
            name = path.relative_to(package).as_posix()
            if path.name == "__init__.py":
                continue
            if path.parent != folder:
                folder, mark = path.parent, path.parent / "__init__.py"
                about = first_line(mark) if (ROOT / mark).is_file() else ""
                lines.append(f"| **{folder.name}/** | {about} |" if folder != Path(package) else "| | |")
            lines.append(f"| [{name}](../{path.as_posix()}) | {first_line(path)} |")
        lines.append("")
    return "\n".join(lines)


# --- the picture ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A stage in the processing of a frame: the function that is called, and its result."""

    verb: str
    call: str  # file within the engine, a colon, and the name in it
    gives: str  # "Class.field" of a types.py, whose comment gives the shape; or words
    place: str = "types.py"  # where that class is


PLAN = (
    Stage("Decode, in a process with limits", "video/decode.py:decode_video", "Video.frames", "video/types.py"),
    Stage("Encode", "planning/analysis.py:source_latents", "latents [T, 4, H/8, W/8] float32"),
    Stage("Compare: features of one UNet pass", "planning/features.py:extract_features", "Features.tokens"),
    Stage("Choose keyframes", "planning/keyframes.py:KeyframeSelector.select", "Segments.keyframes"),
    Stage("Slim: what a keyframe keeps of the others", "planning/slimming.py:build_slimming", "Slimming.kept"),
    Stage("Match every frame to its keyframes", "planning/correspondence.py:build_correspondence",
        "Correspondence.index"),
    Stage("Forecast seconds and memory", "editing/forecasting/forecast.py:forecast", "Forecast.peak_memory_bytes"),
)  # fmt: skip
EDIT = (
    Stage("Invert: the source as noise", "editing/inversion.py:invert", "Inversion.latents"),
    Stage("Find the place of the edit", "editing/place/find.py:find_place", "place [T, h, w] 0..1, or none"),
    Stage("In each step: keyframes, jointly", "editing/attention.py:EditAttention._keyframes",
        "their latents, and what the edit changed in each layer"),
    Stage("In each step: other frames, from keyframes", "editing/attention.py:EditAttention._propagate",
        "latents x [T, 4, h, w] float32"),
    Stage("Between some steps: bring frames to agree", "editing/agreement.py:Agreement.correction",
        "what is added to latents x"),
    Stage("Decode, smooth, show the source", "editing/finish/finished.py:finished_frames", "EditResult.frames"),
    Stage("Write, with sound (EditResult.save)", "video/write.py:write_video",
        "H.264 with the source's times and sound"),
)  # fmt: skip
# Parts of the engine that every other part may import; they are not listed for each stage.
COMMON = ("errors", "version", "progress", "config", "types", "storage", "__init__")


def shape_of(stage: Stage) -> str:
    """Return the result of a stage, with the shape from the comment beside the field."""
    if re.fullmatch(r"\w+\.\w+", stage.gives) is None:
        return stage.gives
    path = Path(ENGINE, stage.place)
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    for node in (node for node in parsed(path).body if isinstance(node, ast.ClassDef)):
        for row in node.body:
            if isinstance(row, ast.AnnAssign) and f"{node.name}.{ast.unparse(row.target)}" == stage.gives:
                shape = re.match(r"\[[^\]]*\]( \w*\d+)?", lines[row.lineno - 1].partition("# ")[2])
                return f"{stage.gives} {shape[0] if shape else ast.unparse(row.annotation)}"
    raise ValueError(f"{path} has no {stage.gives}; change the stage in scripts/docs.py")


def check_call(stage: Stage) -> Path:
    """Return the file of a stage; ValueError if the file lacks the function that is called."""
    file, _, name = stage.call.partition(":")
    node: ast.AST = parsed(Path(ENGINE, file))
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", "") == part]
        if not found:
            raise ValueError(f"{file} has no {name}; change the stage in scripts/docs.py")
        node = found[0]
    return Path(ENGINE, file)


def short(path: Path) -> str:
    return path.relative_to(ENGINE).with_suffix("").as_posix()


def uses(path: Path) -> list[str]:
    """Return the engine's files that a file imports, without those of `COMMON`."""
    return [name for p in import_graph(ENGINE)[path] if not (name := short(p)).startswith(COMMON)]


def by_folder(names: list[str]) -> str:
    """List the names of files in words, grouped by folder."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, []).append(file)
    return "; ".join(f"{folder}: {', '.join(files)}" for folder, files in folders.items())


def picture() -> str:
    """Draw a frame's way through the engine as SVG: two columns of stages, each with the files that it imports."""
    width, gap, top, height, step = 470, 40, 64, 92, 112
    rows = max(len(PLAN), len(EDIT))
    H = top + rows * step + 92
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + 3 * gap} {H}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        "<title>The way of a frame, by scripts/docs.py from the imports of the code</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#3b4656"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]

    def text(x: float, y: float, words: str, fill: str = "#1c212b", **more: object) -> None:
        extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
        out.append(f'<text x="{x:g}" y="{y:g}" fill="{fill}"{extra}>{escape(words)}</text>')

    def arrow(path: str) -> None:
        out.append(f'<path d="{path}" fill="none" stroke="#3b4656" stroke-width="1.5" marker-end="url(#tip)"/>')

    shown: set[str] = set()
    for column, (title, stages) in enumerate((("engine.plan(video)", PLAN), ("engine.edit(plan, prompt)", EDIT))):
        x = gap + column * (width + gap)
        text(x, 40, title, font_size=20, font_weight="bold")
        for row, stage in enumerate(stages):
            path, y = check_call(stage), top + row * step
            shown |= {short(path), *uses(path)}
            out.append(
                f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
                f'fill="{("#eef3fb", "#eef8f2")[column]}" stroke="#8a97a8"/>'
            )
            number, name = column * len(PLAN) + row + 1, stage.call.replace(":", ": ")
            text(x + 12, y + 21, f"{number}. {stage.verb}", font_weight="bold")
            text(x + 12, y + 42, name, "#0b5d54")
            text(x + 12, y + 62, f"gives {shape_of(stage)}")
            imports = f"imports {by_folder(uses(path))}"
            text(x + 12, y + 81, imports, "#5a6676", font_size=min(12, round(12 * 72 / len(imports), 1)))
            if row + 1 < len(stages):
                arrow(f"M{x + width / 2:g} {y + height}v{step - height - 2}")
    # From the last stage of the plan to the first of the edit.
    middle = top + (len(PLAN) - 1) * step + height / 2
    arrow(f"M{gap + width} {middle:g}h{gap / 2:g}V{top + height / 2:g}h{gap / 2 - 2:g}")
    text(
        2 * gap + width,
        top + len(EDIT) * step + 22,
        "A Plan (types.py) passes from left to right; latents come from the cache.",
        font_size=13,
    )
    others = [short(p) for p in import_graph(ENGINE)[Path(ENGINE, "engine", "plan_job.py")]]
    beside = [name for name in others if name not in shown and not name.startswith(COMMON)]
    text(gap, H - 64, "engine also calls " + by_folder(beside), "#5a6676", font_size=12)
    text(gap, H - 42, "T frames, K keyframes, S steps, M kept tokens, P neighbours (1 or 2), n = h·w tokens of a grid",
        "#5a6676", font_size=12)  # fmt: skip
    text(gap, H - 20, "Not shown: " + ", ".join(COMMON[:-1]) + ", which every stage may import", "#5a6676",
        font_size=12)  # fmt: skip
    return "\n".join([*out, "</svg>"]) + "\n"


# --- the settings -----------------------------------------------------------------------------------


def settings_page() -> str:
    """Return the tables of settings with the texts of `edit --help`, and Stable Diffusion's values."""
    lines = [
        "# Settings",
        "",
        "Written by `python scripts/docs.py` from `adaflow_core/config/`; `plan --help` and `edit --help` say the",
        "same. Each has a flag on the command line (`low_memory` is `--low-memory`, `--no-blend` turns `blend` off);",
        "in Python they are the fields of `PlanConfig` and `EditConfig`. *model*: a checkpoint may set a value for",
        "itself in its `adaflow.json`; here is what a Stable Diffusion checkpoint without that file gets.",
    ]
    for title, config in (("Of a plan", PlanConfig), ("Of an edit", EditConfig)):
        lines += ["", f"## {title}", "", "| setting | default | range | |", "|---|---|---|---|"]
        for row in settings_of(config).values():
            words = f"{row.help[:1].upper()}{row.help[1:]}. {row.effect}".strip().replace("|", "\\|")
            lines.append(f"| `{row.name}` | {default_of(row)} | {range_of(row)} | {words} |")
    return "\n".join(lines) + "\n"


def default_of(row: Setting) -> str:
    own = getattr(ModelProfile(), row.name, None) if row.default is None else None
    if own is not None:
        return f"{'auto, else ' if row.name in BY_WORDS else ''}{own:g} *model*"
    if row.default is None:
        return "auto" if row.takes_auto else "*model*"
    return ("off", "on")[row.default] if row.kind is bool else row.as_text(row.default) or "empty"


def range_of(row: Setting) -> str:
    if row.choices:
        return ", ".join(map(str, row.choices))
    if row.low is None or row.high is None:
        return ""
    return f"{row.low:g} to {row.high:g}" if row.high < 2**31 else f"{row.low:g} or more"


# --- the command ------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """Return what the files of docs/ should hold, by path."""
    return {
        DOCS / "pictures" / "frame.svg": picture(),
        DOCS / "settings.md": settings_page(),
        DOCS / "files.md": FILES + file_list(),
    }


def outdated() -> list[str]:
    """Return the files of docs/ that do not agree with the code."""
    return [
        str(path.relative_to(ROOT))
        for path, wanted in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != wanted
    ]


def main() -> int:
    old = outdated()
    if "--check" in sys.argv[1:]:
        print("\n".join(old))
        return int(bool(old))
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print("\n".join(old) or "all up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
