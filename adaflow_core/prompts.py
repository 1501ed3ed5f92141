"""What the user is told of a prompt."""

from __future__ import annotations

from adaflow_core.types import Embedding

_WORDS, _LETTERS, _REST = 12, 40, 200  # what a warning quotes: words, letters of each, letters of what was left out


def prompt_warnings(embedding: Embedding) -> tuple[str, ...]:
    found = []
    if embedding.unknown:
        words = [_shorten(word, _LETTERS) for word in embedding.unknown[:_WORDS]]
        more = f" and {len(embedding.unknown) - _WORDS} more" if len(embedding.unknown) > _WORDS else ""
        found.append(f"the model does not know: {', '.join(words)}{more}")
        if not embedding.known:
            found.append("the model knows no word of the prompt; say it in words that it was trained on")
    if embedding.dropped:
        found.append(f"the prompt is too long; the model does not see: {_shorten(embedding.dropped, _REST)}")
    return tuple(found)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
