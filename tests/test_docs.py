"""The docs against the code: pictures and lists are up to date, links lead somewhere, packages have reasons."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import pictured  # noqa: E402

import docs  # noqa: E402

PAGES = [ROOT / "README.md", *(page for part in ("docs", "benchmarks") for page in sorted((ROOT / part).glob("*.md")))]


def test_what_the_docs_take_from_the_code_is_up_to_date() -> None:
    assert docs.outdated() == [], "run: python scripts/docs.py"


@pytest.mark.parametrize("package", docs.PACKAGES)
def test_every_file_says_what_it_is(package: str) -> None:
    assert [str(path) for path in docs.sources(package) if not docs.first_line(path)] == []


@pytest.mark.parametrize("package", docs.LAYERED)
def test_files_are_listed_after_those_that_they_import(package: str) -> None:
    order = {path: place for place, path in enumerate(docs.in_import_order(package))}
    marks = {path for path in order if path.name == "__init__.py"}
    for path, targets in docs.import_graph(package).items():
        assert path in marks or all(order[target] < order[path] for target in targets if target not in marks), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if target.startswith("http"):
            continue
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, anchor


def test_where_to_look_names_what_is_there() -> None:
    page = ROOT / "docs" / "architecture.md"
    section = page.read_text(encoding="utf-8").split("## Where to look\n")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ") and "](" in row]
    assert len(rows) > 40
    for row in rows:
        targets = re.findall(r"\]\(([^)]+\.py)\)", row)
        code = "\n".join((page.parent / target).read_text(encoding="utf-8") for target in targets)
        for name in re.findall(r"`([\w.]+)`", row):
            last = name.split(".")[-1]
            assert re.search(rf"^\s*((def|class) {last}\b|{last}: )", code, re.MULTILINE), f"{targets} have no {name}"


def test_every_package_has_a_reason() -> None:
    wanted = {
        re.split(r"[=;\[ ]", line)[0]
        for file in ROOT.glob("requirements*.txt")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line and line[0] not in "#-"
    }
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "docs" / "packages.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} - {"package"} == wanted


def test_the_readme_is_short_and_its_moving_picture_light() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 200 and "make app" in readme and "make test" in readme
    assert (ROOT / "docs" / "pictures" / "moving.webp").stat().st_size < 2e6


def test_the_pictures_of_the_page_are_of_this_page() -> None:
    written = pictured.DIGEST.read_text(encoding="utf-8").strip()
    assert pictured.page_digest() == written, (
        "the page looks otherwise than in the README's pictures; run: python scripts/screens.py /tmp/screens --readme"
    )
    names = re.findall(r"docs/pictures/[\w.-]+", PAGES[0].read_text(encoding="utf-8"))
    assert sum("page-" in name for name in names) == 4
    assert sum((ROOT / name).stat().st_size for name in names) < 1.5e6, "a README is to open quickly"


def test_what_changes_no_look_asks_for_no_pictures() -> None:
    code = 'def label():\n    """Why."""\n    return "Edit"  # how\n'
    assert pictured.plain_code(code) == pictured.plain_code("def label(): return 'Edit'")
    assert pictured.plain_code(code) != pictured.plain_code(code.replace("Edit", "Go"))
    assert pictured.plain_style("a { b: c; } /* d */\n") == pictured.plain_style("a {\n  b: c;\n}")
    assert pictured.plain_style("a { b: c; }") != pictured.plain_style("a { b: d; }")
    assert pictured.plain_style("a(); // b\n") == pictured.plain_style("a();")
