"""Digests the page's look for the README's pictures of it; `scripts/screens.py --readme` writes the digest beside them.

It covers the code that determines the page's look and words: style sheet, scripts, theme, components, and the drawing
of a plan's HTML and pictures. Comments, docstrings, formatting, events, the engine and a model's results are left out:
a change of these needs no new pictures.
"""

from __future__ import annotations

import ast
import re
from hashlib import blake2b
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIGEST = ROOT / "docs" / "pictures" / "page.digest"
WEBUI = ROOT / "webui"
CODE = ("webui/theme.py", *(f"adaflow_core/report/{name}.py" for name in ("canvas", "overlays", "plots")))


def page_digest() -> str:
    """Return the digest of the code that determines the page's look and words."""
    digest = blake2b(digest_size=16)
    for path in [WEBUI / "page.css", *sorted(WEBUI.glob("js/*.js"))]:
        digest.update(f"{path.name} {plain_style(path.read_text(encoding='utf-8'))}".encode())
    for path in [
        *sorted(WEBUI.glob("components/*.py")),
        *sorted(WEBUI.glob("views/*.py")),
        *(ROOT / name for name in CODE),
    ]:
        digest.update(f"{path.name} {plain_code(path.read_text(encoding='utf-8'))}".encode())
    return digest.hexdigest()


def plain_style(text: str) -> str:
    """Return a style sheet or a script without comments and line breaks."""
    return " ".join(re.sub(r"/\*.*?\*/|(?<!\S)//[^\n]*", "", text, flags=re.DOTALL).split())


def plain_code(text: str) -> str:
    """Return a program's syntax tree as text, without comments, docstrings and formatting."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
