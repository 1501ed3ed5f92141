"""How sentences for a visitor are put: with a capital, and without anything of the server's folders."""

from __future__ import annotations

import re

# The folders of an absolute path, where one begins: not within a word, an address, a model's id or a fraction.
_FOLDERS = re.compile(r"(?<![\w:/\\.~-])(?:[A-Za-z]:)?[\\/](?=[^\s\\/])(?:[^\s\\/'\"“”<>|:;,()]+[\\/])*")


def sentence(text: str) -> str:
    """`text` with a capital, unless it begins with a name such as that of a file."""
    return text[:1].upper() + text[1:] if text.split(" ")[0].isalpha() else text


def without_folders(text: str) -> str:
    """Absolute paths cut down to their last part: where the server keeps what is nobody's business."""
    return _FOLDERS.sub("", text)
