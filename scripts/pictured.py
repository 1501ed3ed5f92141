"""What the README's pictures of the page show, as a digest that `scripts/screens.py --readme` writes beside them.

It covers what gives the page its look and its words: style sheet, theme, components, and the drawing of a plan's
pictures. Comments, docstrings and formatting are left out, and so are events, the engine and what a model makes of a
clip: none of them asks for new pictures.
"""

from __future__ import annotations

import ast
import re
from hashlib import blake2b
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIGEST = ROOT / "docs" / "pictures" / "page.digest"
COMPONENTS = ROOT / "webui" / "components"
OTHERS = ("webui/theme.py", "adaflow_core/report/canvas.py", "adaflow_core/report/visualize.py")


def page_digest() -> str:
    """Of what the page looks like and says."""
    style = (ROOT / "webui" / "page.css").read_text(encoding="utf-8")
    digest = blake2b(plain_style(style).encode(), digest_size=16)
    for path in [*sorted(COMPONENTS.glob("*.py")), *(ROOT / name for name in OTHERS)]:
        digest.update(f"{path.name} {plain_code(path.read_text(encoding='utf-8'))}".encode())
    return digest.hexdigest()


def plain_style(text: str) -> str:
    """A style sheet without comments and the way it is set."""
    return " ".join(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split())


def plain_code(text: str) -> str:
    """A program without comments, docstrings and the way it is set."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
