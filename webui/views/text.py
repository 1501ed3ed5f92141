"""Sentences, notes and cards as HTML, and numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from webui.messages import sentence


def duration(seconds: float) -> str:
    """Seconds as text, such as "0.4 s", "12 s", "3 min 20 s" or "1 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(size: int) -> str:
    """Bytes as text, in MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def line(text: str) -> str:
    return f'<p class="af-line">{escape(text)}</p>' if text else ""


def quote(text: str) -> str:
    return f'<p class="af-quote">“{escape(text)}”</p>'


def notice(sentences: Sequence[str]) -> str:
    """Highlighted warnings, one per sentence; "" for none."""
    if not sentences:
        return ""
    return '<div class="af-notice">' + "".join(f"<p>{escape(sentence(s))}</p>" for s in sentences) + "</div>"


def notes(sentences: Sequence[str]) -> str:
    """What is good to know, one sentence each; "" for none."""
    if not sentences:
        return ""
    return '<div class="af-notes">' + "".join(f"<p>{escape(sentence(s))}</p>" for s in sentences) + "</div>"


def cards(facts: Sequence[tuple[str, str, str]]) -> str:
    """One card per fact: its name, its value and an explanation."""
    made = "".join(
        f'<div class="af-fact"><dt>{escape(name)}</dt><dd>{escape(value)}</dd>'
        f'<dd class="af-more">{escape(more)}</dd></div>'
        for name, value, more in facts
    )
    return f'<dl class="af-facts">{made}</dl>'
