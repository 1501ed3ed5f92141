"""Imports go one way, and what is heavy is imported where it is first needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The parts of the engine, folders and files. A part may import from the rows above its own, and from within itself.
ENGINE_LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "version"),
    ("progress",),
    ("config", "storage"),
    ("video", "team"),
    ("types",),
    ("model",),
    ("motion",),
    ("report", "planning"),
    ("editing",),
    ("film", "picture"),
    ("engine",),
    ("batch", "selfcheck", "several"),
    ("cli",),
    ("__main__",),
)

PACKAGES: dict[str, set[str]] = {  # which of this project's packages each may import
    "adaflow_core": {"adaflow_core"},
    "scenes": {"scenes", "adaflow_core"},  # training runs under the engine's injection
    "webui": {"webui", "adaflow_core"},
    "benchmarks": {"benchmarks", "adaflow_core", "scenes"},
    "scripts": {"adaflow_core"},
}
OURS = {"adaflow_core", "scenes", "webui", "benchmarks", "scripts", "tests", "app"}
FORBIDDEN = {"adaflow_core": {"gradio", "matplotlib"}, "scenes": {"gradio"}}

# The parts of the page, folders and files. A part may import from the rows above its own, and from within itself.
PAGE_LAYERS: tuple[tuple[str, ...], ...] = (
    ("limits", "messages", "served_images", "settings", "theme"),
    ("jobs",),
    ("kept", "views"),
    ("studio",),
    ("components", "events"),
    ("wiring",),
    ("page",),
    ("serving",),
)
LAYERS = {"adaflow_core": ENGINE_LAYERS, "webui": PAGE_LAYERS}
MOST_LINES, MOST_FILES = 60, 10  # of a function, in a folder


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Dotted names that a file imports at run time, anywhere in it, with their lines."""

    def visit(node: ast.AST) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.orelse:
                yield from visit(child)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import; name the package"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return list(visit(parsed(path)))


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def part_of(path: Path, package: str) -> str:
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", LAYERS)
def test_every_part_has_its_layer(package: str) -> None:
    layers = [part for layer in LAYERS[package] for part in layer]
    assert len(layers) == len(set(layers)), "a part stands in two layers"
    assert {part_of(path, package) for path in sources(package)} - {"__init__"} == set(layers)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_downwards(package: str) -> None:
    layer_of = {part: number for number, layer in enumerate(LAYERS[package]) for part in layer}
    wrong = []
    for path in sources(package):
        part = part_of(path, package)
        if part == "__init__":
            continue
        for name, line in imports(path):
            top, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if top != package or target == part:
                continue
            if target not in layer_of:  # a name of the package itself, such as __version__
                wrong.append(f"{path.relative_to(ROOT)}:{line}: import {name} from its module, not from the package")
            elif layer_of[target] >= layer_of[part]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} may not import {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", LAYERS)
def test_functions_are_short(package: str) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines"
        for path in sources(package)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES
    ]
    assert not long, "\n".join(long)


def _given(tree: ast.Module) -> Iterator[str]:
    """Names that a module gives to constants, functions and classes, as often as it does so without a condition."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name)) if target else ()


@pytest.mark.parametrize("package", ["adaflow_core", "webui"])
def test_a_name_means_one_thing_in_a_module(package: str) -> None:
    """The second of two constants of one name would change what the first one's users compare with."""
    counts = {path: Counter(_given(parsed(path))) for path in sources(package)}
    assert {(path.name, name) for path, names in counts.items() for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize("package", ["adaflow_core", "webui", "benchmarks", "scenes", "tests"])
def test_folders_are_small(package: str) -> None:
    counts = Counter(path.parent.relative_to(ROOT) for path in sources(package))
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_keep_to_themselves(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sources(package)
        for name, line in imports(path)
        if (top := name.split(".")[0]) in OURS - PACKAGES[package] or top in FORBIDDEN.get(package, set())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("statement", ["import adaflow_core", "import adaflow_core.cli.main", "import app"])
def test_heavy_packages_are_not_imported_before_they_are_needed(statement: str) -> None:
    script = f"{statement}; import sys; print(*(set(sys.modules) & set(sys.argv[1:])))"
    heavy = ["gradio", "diffusers", "transformers", "xformers", "decord", "matplotlib", "skimage", "scipy"]
    found = subprocess.run([sys.executable, "-c", script, *heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("statement", "given"), [("from adaflow_core import AdaFlow", "7"), ("import app, webui.page", None)]
)
def test_threads_that_wait_for_each_other_soon_sleep(statement: str, given: str | None) -> None:
    """OpenMP reads how long when torch is first imported; what is set already stays."""
    script = f"""
import os, sys
class Look:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ["GOMP_SPINCOUNT"])
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Look())
{statement}
"""
    env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    env |= {"GOMP_SPINCOUNT": given} if given else {}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=env)
    assert found.stdout.split()[:1] == [given or "5000"]


def import_graph(package: str) -> dict[str, set[str]]:
    """Module -> the modules of the same package that it imports, at its top or inside a function."""
    modules = {}
    for path in sources(package):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path

    def module_of(name: str) -> str | None:
        """The module that a dotted name is, or lies in."""
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    return {
        module: {target for name, _ in imports(path) if (target := module_of(name)) is not None} - {module}
        for module, path in modules.items()
    }


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that import each other, directly or through others."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in found:
                found.add(module)
                waiting.extend(graph[module])
        return found

    reach = {module: reachable(module) for module in graph}
    return {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {frozenset("bc")}


@pytest.mark.parametrize("package", ["adaflow_core", "scenes", "webui", "benchmarks"])
def test_no_circle_of_imports(package: str) -> None:
    found = circles(import_graph(package))
    assert not found, "\n".join(", ".join(sorted(circle)) for circle in found)
