"""What the README's pictures of the page show, as a digest that `scripts/screens.py --readme` writes beside them.

It covers what gives the page its look and its words: style sheet, scripts, theme, components, and the drawing of a
plan's HTML and pictures. Comments, docstrings and formatting are left out, and so are events, the engine and what a
model makes of a clip: none of them asks for new pictures.
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
    """Of what the page looks like and says."""
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
    """A style sheet or a script without comments and the way it is set."""
    return " ".join(re.sub(r"/\*.*?\*/|(?<!\S)//[^\n]*", "", text, flags=re.DOTALL).split())


def plain_code(text: str) -> str:
    """A program without comments, docstrings and the way it is set."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
