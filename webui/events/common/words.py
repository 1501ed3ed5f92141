"""Build a prompt by clicking on the words that a model knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from webui.views.labels import COLOURS, PLACES, STYLES, THINGS


def with_word(prompt: str, kind: str, word: str, words: Mapping[str, Sequence[str]]) -> str:
    """Return `prompt` with `word` replacing the word of the same kind, or inserted where that kind belongs."""
    prompt = prompt.strip()
    old = _found(prompt, words.get(kind, ()))
    if old is not None:
        return _articles(prompt[: old.start()] + word + prompt[old.end() :])
    thing, style = _found(prompt, words.get(THINGS, ())), _found(prompt, words.get(STYLES, ()))
    if kind == COLOURS and thing is not None:
        return _articles(f"{prompt[: thing.start()]}{word} {prompt[thing.start() :]}")
    if kind == STYLES:
        return f"{prompt}, {word}" if prompt else word
    if kind == PLACES:
        at = len(prompt) if style is None else len(prompt[: style.start()].rstrip(" ,"))
        return f"{prompt[:at]} {word}{prompt[at:]}".strip()
    colour = _found(prompt, words.get(COLOURS, ()))
    if kind == THINGS and colour is not None:
        return _articles(f"{prompt[: colour.end()]} {word}{prompt[colour.end() :]}")
    return _articles(f"a {word} {prompt}".strip())


def _found(prompt: str, words: Sequence[str]) -> re.Match[str] | None:
    """Find the first of the words in the prompt; if two match at one place, the longer."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.search(rf"\b({'|'.join(map(re.escape, longest_first))})\b", prompt, re.IGNORECASE) if words else None


def _articles(prompt: str) -> str:
    """Correct each "a" and "an" to fit the word after it."""
    return re.sub(r"\b(an?) (\w)", lambda m: f"{'an' if m[2] in 'aeiouAEIOU' else 'a'} {m[2]}", prompt)
